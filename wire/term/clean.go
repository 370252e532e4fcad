package term

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text from somebody else harmless to a terminal: control
// characters, escape sequences, bidirectional overrides and broken UTF-8 become
// visible; newlines and tabs stay. It is idempotent. Nothing becomes more than
// four times as long, and text that is clean is not copied.
func Clean(s string) string {
	size := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if kind, digits := visible(r, n); kind != 0 {
			size += 2 + digits
		} else {
			size += n
		}
		i += n
	}
	if size == len(s) { // what is made visible is always longer than it was
		return s
	}
	var b strings.Builder
	b.Grow(size)
	var clean [16]byte
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		b.Write(appendClean(clean[:0], r, n, s[i]))
		i += n
	}
	return b.String()
}

// visible is how a character of n bytes is shown: the letter after a backslash
// and how many hexadecimal digits follow, or zero where it stays as it is.
func visible(r rune, n int) (kind byte, digits int) {
	switch {
	case r == utf8.RuneError && n == 1:
		return 'x', 2
	case r == '\n' || r == '\t':
		return 0, 0
	case r < 0x20 || r >= 0x7f && r < 0xa0:
		return 'x', 2
	case unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
		if r > 0xffff {
			return 'u', 5
		}
		return 'u', 4
	}
	return 0, 0
}

// appendClean appends one character of n bytes, of which raw is the first.
func appendClean(dst []byte, r rune, n int, raw byte) []byte {
	kind, digits := visible(r, n)
	if kind == 0 {
		return utf8.AppendRune(dst, r)
	}
	if r == utf8.RuneError {
		r = rune(raw)
	}
	dst = append(dst, '\\', kind)
	for digits--; digits >= 0; digits-- {
		dst = append(dst, "0123456789abcdef"[r>>(4*digits)&0xf])
	}
	return dst
}

// cleanedAtOnce is about how much a Cleaner passes on in one write, so that
// what it holds does not grow with what it is given.
const cleanedAtOnce = 16 << 10

// Cleaner cleans a stream: what it writes is what Clean would have made of the
// whole, however it was cut into pieces.
type Cleaner struct {
	to    io.Writer
	rest  []byte // the beginning of a character whose end has not come
	clean []byte // used again by every Write
}

// NewCleaner returns a Cleaner in front of w.
func NewCleaner(w io.Writer) *Cleaner { return &Cleaner{to: w} }

// Write cleans p and passes it on.
func (c *Cleaner) Write(p []byte) (int, error) {
	data := p
	if len(c.rest) > 0 {
		data = append(c.rest, p...)
	}
	end := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if utf8.RuneStart(data[len(data)-back]) {
			if !utf8.FullRune(data[len(data)-back:]) {
				end = len(data) - back
			}
			break
		}
	}
	c.rest = append([]byte(nil), data[end:]...)
	if err := c.pass(data[:end]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// pass cleans whole characters and writes them.
func (c *Cleaner) pass(data []byte) error {
	c.clean = c.clean[:0]
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		c.clean = appendClean(c.clean, r, n, data[i])
		if i += n; len(c.clean) < cleanedAtOnce && i < len(data) {
			continue
		}
		if _, err := c.to.Write(c.clean); err != nil {
			return err
		}
		c.clean = c.clean[:0]
	}
	return nil
}

// Flush writes a character that was never finished, as what it is.
func (c *Cleaner) Flush() error {
	rest := c.rest
	c.rest = nil
	return c.pass(rest)
}
