package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Weakening takes long, and is not done at every change; that every mutant still
// has its place in the source, and a test of that name to kill it, is.
func TestEveryMutantHasItsPlaceAndItsTest(t *testing.T) {
	mutants, err := parse(table)
	if err != nil {
		t.Fatal(err)
	}
	const atLeast = 40
	if len(mutants) < atLeast {
		t.Errorf("%d mutants, fewer than %d", len(mutants), atLeast)
	}
	seen := make(map[string]bool)
	for _, m := range mutants {
		if seen[m.name] {
			t.Errorf("%s stands in the table twice", m.name)
		}
		seen[m.name] = true
		source, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: its text stands in %s %d times", m.name, m.file, n)
		}
		if !hasTest(t, m.pkg, m.test) {
			t.Errorf("%s: there is no %s in %s", m.name, m.test, m.pkg)
		}
	}
}

// hasTest looks for the test in the package's own files.
func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	name, _, _ = strings.Cut(name, "/")
	files, err := filepath.Glob(filepath.Join("..", "..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
