package mcp

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"openscope/wire/term"
)

// An agent is shown the beginning and the end of what a stream brought; the
// digest in the result is of the whole.
const (
	keepHead = 32 << 10
	keepTail = 32 << 10
)

// clipped keeps the two ends of a stream. One goroutine writes it.
type clipped struct {
	head, tail []byte
	total      uint64
}

func (c *clipped) Write(p []byte) (int, error) {
	c.total += uint64(len(p))
	rest := p
	if room := keepHead - len(c.head); room > 0 {
		n := min(room, len(rest))
		c.head, rest = append(c.head, rest[:n]...), rest[n:]
	}
	c.tail = append(c.tail, rest...)
	if len(c.tail) > 2*keepTail {
		c.tail = append(c.tail[:0], c.tail[len(c.tail)-keepTail:]...)
	}
	return len(p), nil
}

// truncated reports whether text leaves something out.
func (c *clipped) truncated() bool { return c.total > keepHead+keepTail }

// text is what was kept, harmless to show. A cut is where a character ends.
func (c *clipped) text() string {
	if !c.truncated() {
		return term.Clean(string(c.head) + string(c.tail))
	}
	head, tail := c.head, c.tail[len(c.tail)-keepTail:]
	for i := 0; i < utf8.UTFMax && len(head) > 0 && !utf8.Valid(head[len(head)-min(len(head), utf8.UTFMax):]); i++ {
		head = head[:len(head)-1]
	}
	for i := 0; i < utf8.UTFMax && len(tail) > 0 && !utf8.RuneStart(tail[0]); i++ {
		tail = tail[1:]
	}
	left := c.total - uint64(len(head)) - uint64(len(tail))
	return term.Clean(string(head)) + fmt.Sprintf("\n[%d bytes are left out here]\n", left) + term.Clean(string(tail))
}

// marked is foreign text between two lines that it cannot have foreseen.
func marked(what, nonce, text string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[untrusted %s begins, %s]\n%s", what, nonce, text)
	if !strings.HasSuffix(text, "\n") {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "[untrusted %s ends, %s]", what, nonce)
	return b.String()
}

// recent is the newest output that no progress message has told of. The newest
// matters: what does not fit is dropped from its beginning.
type recent struct {
	clean *term.Cleaner
	text  bytes.Buffer
	cut   bool
}

// maxProgress bounds the output in one progress message.
const maxProgress = 2 << 10

func newRecent() *recent {
	r := &recent{}
	r.clean = term.NewCleaner(&r.text)
	return r
}

func (r *recent) add(p []byte) {
	if len(p) > maxProgress {
		r.cut, p = true, p[len(p)-maxProgress:]
		r.text.Reset()
	}
	_, _ = r.clean.Write(p) // a buffer takes all
	if over := r.text.Len() - maxProgress; over > 0 {
		r.cut = true
		r.text.Next(over)
		for r.text.Len() > 0 && !utf8.RuneStart(r.text.Bytes()[0]) {
			r.text.Next(1)
		}
	}
}

// take is the message, empty where there is nothing new.
func (r *recent) take(stream string) string {
	if r.text.Len() == 0 {
		return ""
	}
	dots := ""
	if r.cut {
		dots = "[...] "
	}
	message := fmt.Sprintf("untrusted %s: %s%s", stream, dots, r.text.String())
	r.text.Reset()
	r.cut = false
	return message
}
