package yamlfile

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

// OrNil is an error only where there is one.
func (m Mistakes) OrNil() error {
	if len(m) == 0 {
		return nil
	}
	return m
}

// maxMistakes is how many are told of one file: a file can be made of them.
const maxMistakes = 100

// Collector gathers what is wrong with one file. It is not for several goroutines.
type Collector struct {
	file  string
	lines Lines
	found []placedError
	more  int // not kept
}

type placedError struct {
	line int
	err  error
}

// NewCollector gathers what is wrong with the file of that name, which is for
// messages. The lines are those that it knows already; Decode adds to them.
func NewCollector(file string, lines Lines) *Collector { return &Collector{file: file, lines: lines} }

// File is the name for messages.
func (c *Collector) File() string { return c.file }

// Lines are where the keys of the file stand.
func (c *Collector) Lines() Lines { return c.lines }

// Count is how many mistakes there are so far.
func (c *Collector) Count() int { return len(c.found) + c.more }

// Places are the lines of the mistakes so far.
func (c *Collector) Places() []int {
	lines := make([]int, len(c.found))
	for i, f := range c.found {
		lines[i] = f.line
	}
	return lines
}

// AddAt enters an error about a line; line 0 stands for none.
func (c *Collector) AddAt(line int, err error, fix string) {
	if len(c.found) == maxMistakes {
		c.more++
		return
	}
	where := c.file
	if line > 0 {
		where = fmt.Sprintf("%s:%d", c.file, line)
	}
	c.found = append(c.found, placedError{line, WithFix(fmt.Errorf("%s: %w", where, err), fix)})
}

// Err is all of it, or nil.
func (c *Collector) Err() error {
	if len(c.found) == 0 {
		return nil
	}
	slices.SortStableFunc(c.found, func(a, b placedError) int { return cmp.Compare(a.line, b.line) })
	all := make(Mistakes, len(c.found))
	for i, f := range c.found {
		all[i] = f.err
	}
	if c.more > 0 {
		all = append(all, WithFix(fmt.Errorf("%s: %d mistakes more", c.file, c.more), "mend the first ones"))
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

// WithFix adds the fix to an error; one that has a fix already keeps it.
func WithFix(err error, fix string) error {
	if _, has := errors.AsType[*fixed](err); has || err == nil {
		return err
	}
	return &fixed{err, fix}
}
