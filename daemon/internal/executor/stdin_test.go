package executor

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestACommandReadsTheInputItIsGivenAndNoMore(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		for _, input := range []string{"", "one line\n", strings.Repeat("x", maxStdin)} {
			var out bytes.Buffer
			// By both names that a program may read its input by.
			job := Job{Argv: []string{"sh", "-c", "cat; [ -z \"$(cat)\" ] && cat </dev/stdin"}, As: me(t), Stdin: []byte(input), Stdout: &out}
			if o := e.Execute(t.Context(), job); o.Err != nil || out.String() != input+input {
				t.Errorf("%d bytes: %+v, %d bytes came", len(input), o, out.Len())
			}
		}
		job := Job{Argv: []string{"cat"}, As: me(t), Stdin: make([]byte, maxStdin+1)}
		if o := e.Execute(t.Context(), job); !errors.Is(o.Err, ErrJob) {
			t.Errorf("too much input: %+v", o)
		}
	})
}
