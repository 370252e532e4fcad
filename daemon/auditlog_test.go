package daemon

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"openscope/daemon/internal/audit"
)

// Whoever asks for a kind that is not in the list is told so: it has to be whole.
func TestEveryKindOfEntryCanBeAskedForAndNoOther(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	said := regexp.MustCompile(`(?:Kind: |[eE]vent\(|\bkind :?= |editRecipients\()"([a-z-]+)"`)
	used := map[string]bool{audit.KindTorn: true, audit.KindRotate: true}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
			if !slices.Contains(audit.Kinds, m[1]) {
				t.Errorf("%s enters a %q, which nobody can ask for", file, m[1])
			}
		}
	}
	for _, kind := range audit.Kinds {
		if !used[kind] {
			t.Errorf("nothing enters a %q", kind)
		}
	}
}
