package bench

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namesOfTests are those of the whole module.
func namesOfTests(t *testing.T) map[string]bool {
	t.Helper()
	exists := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, name := range declared.FindAllStringSubmatch(string(source), -1) {
			exists[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return exists
}

// TestTheSecurityPageNamesTestsThatExist: a promise whose test was renamed or
// dropped is one that nobody holds.
func TestTheSecurityPageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := namesOfTests(t)
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 40 {
		t.Errorf("the page names %d tests", len(named))
	}
	for _, name := range named {
		if !exists[name[1]] {
			t.Errorf("there is no %s", name[1])
		}
	}
	rows := regexp.MustCompile(`(?m)^\|[^|\n]*\|[^|\n]*\|[^|\n]*\|[^|\n]*\|([^|\n]*)\|$`).FindAllStringSubmatch(string(page), -1)
	for _, row := range rows[1:] {
		if !strings.Contains(row[1], "`Test") && !strings.Contains(row[1], "---") {
			t.Errorf("a promise without a test: %.80s", row[0])
		}
	}
}
