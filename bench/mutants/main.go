// Command mutants weakens the product's security one line at a time, in a copy
// of the source, and demands that a named test fails each time. A mutant that
// lives is a promise that no test holds.
//
//	go run ./bench/mutants [NAME…]
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed mutants.txt
var table string

// mutant is one weakening: the text that is replaced, and the test that is to
// fail.
type mutant struct {
	name, file, old, new string
	pkg, test            string
}

// patience is how long one test may take; a mutant that makes it hang is killed
// by its own timeout.
const patience = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	mutants, err := parse(table)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "openscope-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copySource(ctx, dir); err != nil {
		return err
	}
	if len(names) > 0 {
		mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !slices.Contains(names, m.name) })
	}
	if len(mutants) == 0 {
		return errors.New("there is no such mutant")
	}
	if err := healthy(ctx, dir, mutants); err != nil {
		return err
	}
	killed := 0
	for _, m := range mutants {
		began := time.Now()
		err := m.try(ctx, dir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Printf("LIVES   %-44s %v\n", m.name, err)
			continue
		}
		killed++
		fmt.Printf("killed  %-44s by %s in %.0f s\n", m.name, m.test, time.Since(began).Seconds())
	}
	fmt.Printf("\n%d mutants, %d killed\n", len(mutants), killed)
	if killed < len(mutants) {
		return errors.New("not every mutant was killed")
	}
	return nil
}

// parse reads the table: paragraphs of a name, then lines of key: value. old
// and new may be given more than once, for a text of several lines.
func parse(text string) ([]mutant, error) {
	var all []mutant
	for _, paragraph := range strings.Split(text, "\n\n") {
		var m mutant
		for line := range strings.Lines(paragraph) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			key, value, ok := strings.Cut(line, ": ")
			if !ok {
				return nil, fmt.Errorf("the table has a line %q", line)
			}
			to := map[string]*string{"mutant": &m.name, "file": &m.file, "old": &m.old, "new": &m.new, "pkg": &m.pkg, "test": &m.test}[key]
			if to == nil {
				return nil, fmt.Errorf("the table has a key %q", key)
			}
			if *to != "" {
				value = *to + "\n" + value
			}
			*to = value
		}
		if m == (mutant{}) {
			continue
		}
		if m.name == "" || m.file == "" || m.old == "" || m.pkg == "" || m.test == "" {
			return nil, fmt.Errorf("the table has half a mutant: %+v", m)
		}
		all = append(all, m)
	}
	return all, nil
}

// copySource copies what git tracks, as it is in the working tree.
func copySource(ctx context.Context, dir string) error {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	if err != nil {
		return fmt.Errorf("listing the source: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// healthy demands that every test passes on the source as it is, and is not
// skipped: one that fails anyhow would seem to kill whatever it is given.
func healthy(ctx context.Context, dir string, mutants []mutant) error {
	tests := make(map[string][]string) // by package
	for _, m := range mutants {
		if !slices.Contains(tests[m.pkg], m.test) {
			tests[m.pkg] = append(tests[m.pkg], m.test)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(tests)) {
		pattern := "^(" + strings.Join(tests[pkg], "|") + ")$"
		test := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-v", "-timeout=10m", "-run", pattern, pkg)
		test.Dir = dir
		out, err := test.CombinedOutput()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, name := range tests[pkg] {
			if !bytes.Contains(out, []byte("--- PASS: "+name+" ")) {
				return fmt.Errorf("%s of %s does not pass on the source as it is (%v)", name, pkg, err)
			}
		}
		fmt.Printf("passes  %s: %d tests, unweakened\n", pkg, len(tests[pkg]))
	}
	return nil
}

// try applies the mutant, runs its test and takes the mutant back. It returns
// nil if the test failed, as it should.
func (m mutant) try(ctx context.Context, dir string) error {
	path := filepath.Join(dir, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return fmt.Errorf("%s has its text %d times", m.file, n)
	}
	if err := os.WriteFile(path, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		return err
	}
	defer os.WriteFile(path, source, 0o644) // the copy is thrown away in any case
	return m.run(ctx, dir)
}

// run builds the test, however long that takes, and gives it its time.
func (m mutant) run(ctx context.Context, dir string) error {
	binary := filepath.Join(dir, "mutant.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-o", binary, m.pkg)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not build: %s", firstLines(out))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	test := exec.CommandContext(ctx, binary, "-test.run=^"+m.test+"$", "-test.timeout=2m")
	test.Dir = filepath.Join(dir, m.pkg)
	out, err := test.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return fmt.Errorf("there is no test %s", m.test)
	case err == nil:
		return fmt.Errorf("%s passes", m.test)
	case bytes.Contains(out, []byte("--- FAIL: "+m.test)), bytes.Contains(out, []byte("panic: test timed out")):
		return nil
	}
	return fmt.Errorf("%s does not fail: %v, %s", m.test, err, firstLines(out))
}

func firstLines(out []byte) string {
	lines := strings.SplitN(strings.TrimSpace(string(out)), "\n", 4)
	return strings.Join(lines[:min(3, len(lines))], " / ")
}
