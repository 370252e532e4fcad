package term

import (
	"encoding/base64"
	"io"
	"unicode/utf8"
)

// Foreign is where text from somebody else goes: through a [Cleaner] to a
// terminal, as it is to a file or a pipe.
func Foreign(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return NewCleaner(w)
	}
	return w
}

// Flush writes what a [Cleaner] among the writers still holds back.
func Flush(writers ...io.Writer) error {
	for _, w := range writers {
		if c, ok := w.(*Cleaner); ok {
			if err := c.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// outputLine is one piece of a verb's output under --json.
type outputLine struct {
	Stream string `json:"stream"`
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"` // where it is not text
}

type jsonStream struct {
	to     io.Writer
	stream string
}

// JSONStream writes each piece of a stream of output as a JSON object on a line
// of its own.
func JSONStream(w io.Writer, stream string) io.Writer {
	return &jsonStream{to: w, stream: stream}
}

func (w *jsonStream) Write(p []byte) (int, error) {
	line := outputLine{Stream: w.stream}
	if utf8.Valid(p) {
		line.Text = string(p)
	} else {
		line.Base64 = base64.StdEncoding.EncodeToString(p)
	}
	if err := WriteJSON(w.to, line); err != nil {
		return 0, err
	}
	return len(p), nil
}
