package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"openscope/wire/term"
)

// What the README gives to paste is read as a host reads it, and run up to the
// handle, which is not there.
func TestWhatTheReadmeGivesToPasteIsUnderstood(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(readme, -1) {
		var file map[string]map[string]struct {
			Command string
			Args    []string
		}
		if err := json.Unmarshal(block[1], &file); err != nil {
			t.Fatalf("%v:\n%s", err, block[1])
		}
		for _, servers := range file {
			for _, s := range servers {
				lines = append(lines, append([]string{s.Command}, s.Args...))
			}
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^    \w+ mcp add \w+ -- (.*)$`).FindAllSubmatch(readme, -1) {
		lines = append(lines, strings.Fields(string(line[1])))
	}
	if len(lines) != 5 {
		t.Fatalf("%d lines to paste", len(lines))
	}
	for _, line := range lines {
		if line[0] != program {
			t.Errorf("%q is another program", line[0])
		}
		var stdout, stderr bytes.Buffer
		env := &term.Env{
			Program: program, Stdin: io.NopCloser(strings.NewReader("")), Stdout: closable{&stdout}, Stderr: &stderr,
			Getenv: func(string) string { return "" },
		}
		code := term.Main(t.Context(), env, root(), line[1:])
		if code != int(term.Usage) || !strings.Contains(stderr.String(), "/home/me/acme.handle: no such file") || stdout.Len() > 0 {
			t.Errorf("%q: exit %d: %s%s", line, code, stdout.String(), stderr.String())
		}
	}
}

type closable struct{ io.Writer }

func (closable) Close() error { return nil }
