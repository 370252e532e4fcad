package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openscope/wire/term"
)

// history is what was typed, newest last, in a file of one line each that only
// its owner can read. A line with a secret in its text form is not kept, nor is
// one that begins with a space.
type history struct {
	path  string // empty: kept in memory only
	lines []string
}

// Bounds of the history.
const (
	maxHistory     = 500
	maxHistoryFile = 1 << 20
	maxHistoryLine = 2048
)

// openHistory reads the file as far as it can; a history is a convenience.
func openHistory(path string) *history {
	h := &history{path: path}
	file, err := os.Open(path)
	if err != nil {
		return h
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxHistoryFile))
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSuffix(line, "\n"); keepable(line) {
			h.lines = append(h.lines, line)
		}
	}
	h.trim()
	return h
}

func keepable(line string) bool {
	return line != "" && line[0] != ' ' && len(line) <= maxHistoryLine && term.Redact(line) == line && term.Clean(line) == line
}

// Add, Len and At are x/term's.
func (h *history) Add(line string) {
	line = strings.TrimRight(line, " ") // completion leaves one
	if !keepable(line) || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	h.trim()
	_ = h.write() // what cannot be written is only not there next time
}

func (h *history) Len() int        { return len(h.lines) }
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }

func (h *history) trim() {
	if over := len(h.lines) - maxHistory; over > 0 {
		h.lines = slices.Delete(h.lines, 0, over)
	}
}

// write replaces the file, whole.
func (h *history) write() error {
	if h.path == "" {
		return nil
	}
	dir := filepath.Dir(h.path)
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing the history: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".history-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = io.WriteString(tmp, strings.Join(h.lines, "\n")+"\n")
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	if err := os.Rename(tmp.Name(), h.path); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}
