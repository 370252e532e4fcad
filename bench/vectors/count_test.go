package vectors

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files are a product: what is promised of them is held here.
func TestThereAreTwoHundredCasesAndMostMustFail(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/vectors/*.json")
	if err != nil || len(paths) < 13 {
		t.Fatalf("%d files: %v", len(paths), err)
	}
	readme, err := os.ReadFile("../../testdata/vectors/README.md")
	if err != nil {
		t.Fatal(err)
	}
	cases, failures := 0, 0
	for _, path := range paths {
		if !strings.Contains(string(readme), "| `"+filepath.Base(path)+"` |") {
			t.Errorf("%s: its folder's README.md does not say what it is", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file File
		if err := json.Unmarshal(text, &file); err != nil || file.About == "" || len(file.Cases) == 0 {
			t.Errorf("%s: %d cases, about %q: %v", path, len(file.Cases), file.About, err)
		}
		names, causes := make(map[string]bool), make(map[string]string)
		for _, c := range file.Cases {
			in, err := json.Marshal(c.In) // in the order of the keys
			if err != nil {
				t.Fatal(err)
			}
			if other := causes[string(in)]; names[c.Name] || other != "" || c.Name == "" {
				t.Errorf("%s: %q is a case already (%q)", path, c.Name, other)
			}
			names[c.Name], causes[string(in)] = true, c.Name
			cases++
			if c.Error != "" {
				failures++
			}
		}
	}
	const handshakes = 200 // C5
	if n := len(Load(t, "../..", "handshake").Cases); n < handshakes {
		t.Errorf("%d handshakes, fewer than %d", n, handshakes)
	}
	if cases < 200 || failures < 120 {
		t.Errorf("%d cases, %d of them failures", cases, failures)
	}
	t.Logf("%d files, %d cases, %d of them failures", len(paths), cases, failures)
}
