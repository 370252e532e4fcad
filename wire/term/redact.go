package term

import (
	"io"
	"regexp"
)

// secretText is a text form of a secret: a handle, a deployment token, a private
// key. People paste them where something else belongs.
var secretText = regexp.MustCompile(`(?i)(osh1[sb]|ost1|openscope-secret-key-1|openscope-daemon-key-1|openscope-checkpoint-key-1)[^\s"']{4,}`)

// longText is what remains of one whose beginning was garbled.
var longText = regexp.MustCompile(`[0-9A-Za-z]{40,}`)

// publicText is as long, and no secret: a hash, a recipient's public key.
var publicText = regexp.MustCompile(`^([0-9a-f]+|osk1[0-9a-z]+)$`)

// Redact keeps the beginning of every secret in the text, by which it is known
// what it was.
func Redact(text string) string {
	text = secretText.ReplaceAllString(text, "$1...")
	return longText.ReplaceAllStringFunc(text, func(long string) string {
		if publicText.MatchString(long) {
			return long
		}
		return long[:4] + "..."
	})
}

// redactor passes on what is written to it, a whole line at a time, redacted.
type redactor struct{ to io.Writer }

func (r redactor) Write(line []byte) (int, error) {
	if _, err := io.WriteString(r.to, Redact(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
