package term

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text from somebody else harmless to a terminal: control
// characters, escape sequences, bidirectional overrides and broken UTF-8 become
// visible; newlines and tabs stay. It is idempotent.
func Clean(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		writeClean(&b, r, size, s[i])
		i += size
	}
	return b.String()
}

func writeClean(b *strings.Builder, r rune, size int, raw byte) {
	switch {
	case r == utf8.RuneError && size == 1:
		fmt.Fprintf(b, `\x%02x`, raw)
	case r == '\n' || r == '\t':
		b.WriteRune(r)
	case r < 0x20 || r >= 0x7f && r < 0xa0:
		fmt.Fprintf(b, `\x%02x`, r)
	case unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

// Cleaner cleans a stream: what it writes is what Clean would have made of the
// whole, however it was cut into pieces.
type Cleaner struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end has not come
}

// NewCleaner returns a Cleaner in front of w.
func NewCleaner(w io.Writer) *Cleaner { return &Cleaner{to: w} }

// Write cleans p and passes it on.
func (c *Cleaner) Write(p []byte) (int, error) {
	data := append(c.rest, p...)
	end := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if utf8.RuneStart(data[len(data)-back]) {
			if !utf8.FullRune(data[len(data)-back:]) {
				end = len(data) - back
			}
			break
		}
	}
	text := Clean(string(data[:end]))
	c.rest = append([]byte(nil), data[end:]...)
	if _, err := io.WriteString(c.to, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes a character that was never finished, as what it is.
func (c *Cleaner) Flush() error {
	text := Clean(string(c.rest))
	c.rest = nil
	_, err := io.WriteString(c.to, text)
	return err
}
