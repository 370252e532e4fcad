package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Mistakes are all that is wrong with a file, in the order of its lines. As one
// error they are the first, and how many more there are.
type Mistakes []error

func (m Mistakes) Error() string {
	switch len(m) {
	case 0:
		return "no mistakes"
	case 1:
		return m[0].Error()
	}
	return fmt.Sprintf("%v (and %d more after it)", m[0], len(m)-1)
}

// Unwrap gives each of them.
func (m Mistakes) Unwrap() []error { return m }

// maxMistakes is how many are told of one file: a file can be made of them.
const maxMistakes = 100

// collector gathers what is wrong with one file.
type collector struct {
	file  string
	lines Lines
	found []placedError
	more  int // not kept
}

type placedError struct {
	line int
	err  error
}

// add enters an error about what stands at the path; nil is none.
func (c *collector) add(path string, err error, fix string) {
	if err != nil {
		c.addAt(c.lines.At(path), fmt.Errorf("%s: %w", dotted(path), err), fix)
	}
}

// addItem enters an error about one item of the list at the path.
func (c *collector) addItem(path string, i int, err error, fix string) {
	c.addAt(c.lines.At(fmt.Sprintf("%s/%d", path, i)), fmt.Errorf("%s: %w", dotted(path), err), fix)
}

func dotted(path string) string { return strings.ReplaceAll(path, "/", ".") }

// addAt enters an error about a line; line 0 stands for none.
func (c *collector) addAt(line int, err error, fix string) {
	if len(c.found) == maxMistakes {
		c.more++
		return
	}
	where := c.file
	if line > 0 {
		where = fmt.Sprintf("%s:%d", c.file, line)
	}
	c.found = append(c.found, placedError{line, withFix(fmt.Errorf("%s: %w", where, err), fix)})
}

// err is all of it, or nil.
func (c *collector) err() error {
	if len(c.found) == 0 {
		return nil
	}
	slices.SortStableFunc(c.found, func(a, b placedError) int { return cmp.Compare(a.line, b.line) })
	all := make(Mistakes, len(c.found))
	for i, f := range c.found {
		all[i] = f.err
	}
	if c.more > 0 {
		all = append(all, withFix(fmt.Errorf("%s: %d mistakes more", c.file, c.more), "mend the first ones"))
	}
	return all
}

// Lines are where the keys of a file stand, by their path: agents/you/allow/0.
type Lines map[string]int

// At is the line of a path, or of the nearest above it; 0 where there is none.
func (l Lines) At(path string) int {
	for path != "" {
		if line, ok := l[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
	return 0
}

// fixed is an error that says how to mend what it is about.
type fixed struct {
	error
	fix string
}

func (e *fixed) Unwrap() error { return e.error }

// Hint is the fix, for the line below the error.
func (e *fixed) Hint() string { return e.fix }

// withFix adds the fix to an error; one that has a fix already keeps it.
func withFix(err error, fix string) error {
	if _, has := errors.AsType[*fixed](err); has || err == nil {
		return err
	}
	return &fixed{err, fix}
}
