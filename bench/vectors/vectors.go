// Package vectors keeps the published test vectors, testdata/vectors: one file
// a topic, one cause a case, with the failure class of those that must fail. It
// is for tests: each package writes the vectors of what it parses, and judges
// them with its own code. Another implementation reads the files alone.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Values are a case's inputs or results by name. Bytes are in hex.
type Values map[string]string

// Bytes reads a value in hex. The names are the test's own: one that is missing
// or malformed is a mistake in the vectors.
func (v Values) Bytes(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[name])
	if _, ok := v[name]; !ok || err != nil {
		t.Fatalf("the value %q is %q: %v", name, v[name], err)
	}
	return b
}

// Hex is bytes as a value.
func Hex(b []byte) string { return hex.EncodeToString(b) }

// Case is one input with what must come of it: the results, or an error of one
// class.
type Case struct {
	Name  string `json:"name"`
	In    Values `json:"in"`
	Out   Values `json:"out,omitempty"`
	Error string `json:"error,omitempty"` // failure class; empty where the input is good
}

// File is one topic.
type File struct {
	About string `json:"about"` // what the values mean, and the section that specifies it
	Cases []Case `json:"cases"`
}

// Judge is the code under test: it does with the inputs what the file is about.
type Judge func(t *testing.T, in Values) (Values, error)

// Classes names, for each failure class of a file, words that the error of this
// implementation has, and that no other class's error has.
type Classes map[string]string

var update = flag.Bool("update", false, "write testdata/vectors instead of comparing with it")

// Check holds the file of that name to what the test generates, and the code to
// the file. With -update it writes the file first.
func Check(t *testing.T, root, name string, generated File, judge Judge, classes Classes) {
	t.Helper()
	path := filepath.Join(root, "testdata", "vectors", name+".json")
	text := generated.encode(t)
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, text) {
		t.Errorf("%s is not what is generated: did the protocol change? (make vectors writes it anew)", path)
	}
	var file File
	if err := json.Unmarshal(published, &file); err != nil {
		t.Fatal(err)
	}
	failures := 0
	for _, c := range file.Cases {
		if c.Error != "" {
			failures++
		}
		t.Run(c.Name, func(t *testing.T) { c.check(t, judge, classes) })
	}
	t.Logf("%s: %d cases, %d of them failures", name, len(file.Cases), failures)
}

func (f File) encode(t *testing.T) []byte {
	t.Helper()
	names := make(map[string]bool)
	for _, c := range f.Cases {
		if names[c.Name] || (c.Error != "" && len(c.Out) > 0) {
			t.Fatalf("the case %q is there twice, or both fails and succeeds", c.Name)
		}
		names[c.Name] = true
	}
	text, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func (c Case) check(t *testing.T, judge Judge, classes Classes) {
	out, err := judge(t, c.In)
	if c.Error == "" {
		if err != nil {
			t.Fatalf("it is refused: %v", err)
		}
		if !maps.Equal(out, c.Out) {
			t.Errorf("it comes out as\n%s, not\n%s", out, c.Out)
		}
		return
	}
	if got := classes.of(err); got != c.Error {
		t.Errorf("the error is of class %q, not %q: %v", got, c.Error, err)
	}
}

// of is the one class whose words the error has.
func (c Classes) of(err error) string {
	if err == nil {
		return "(none: it was accepted)"
	}
	var found []string
	for class, words := range c {
		if strings.Contains(err.Error(), words) {
			found = append(found, class)
		}
	}
	if len(found) != 1 {
		return fmt.Sprintf("(%d classes: %q)", len(found), found)
	}
	return found[0]
}

// String is the values in the order of their names.
func (v Values) String() string {
	text, err := json.Marshal(v) // sorts the names
	if err != nil {
		return err.Error()
	}
	return string(text)
}
