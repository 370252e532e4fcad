package wire

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrText is wrapped by every refusal of a text form.
var ErrText = errors.New("not a valid text")

// checksumSize is how much of the payload's SHA-256 follows it.
const checksumSize = 4

// text32 is lower-case base32 without i, l, o and u: the letters people confuse.
var text32 = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// EncodeText is the text form of handles, tokens and keys: the prefix, then
// base32 of the payload and the first four bytes of its SHA-256 (§4).
func EncodeText(prefix string, payload []byte) string {
	sum := sha256.Sum256(payload)
	whole := append(append([]byte(nil), payload...), sum[:checksumSize]...)
	return prefix + text32.EncodeToString(whole)
}

// DecodeText is the inverse of [EncodeText], for a text of at most maxLen
// characters. It takes either case, drops white space and one pair of quotes,
// and refuses whatever does not encode back to itself.
func DecodeText(prefix, text string, maxLen int) ([]byte, error) {
	if len(text) > 2*maxLen {
		return nil, fmt.Errorf("%w: longer than %d characters", ErrText, maxLen)
	}
	text = normalText(text)
	if len(text) > maxLen {
		return nil, fmt.Errorf("%w: longer than %d characters", ErrText, maxLen)
	}
	body, ok := strings.CutPrefix(text, strings.ToLower(prefix))
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrText, prefix)
	}
	whole, err := text32.DecodeString(body)
	if err != nil || len(whole) < checksumSize {
		return nil, fmt.Errorf("%w: it is cut short or has a character that does not belong", ErrText)
	}
	if text32.EncodeToString(whole) != body {
		return nil, fmt.Errorf("%w: its last character is not canonical", ErrText)
	}
	payload, check := whole[:len(whole)-checksumSize], whole[len(whole)-checksumSize:]
	sum := sha256.Sum256(payload)
	if subtle.ConstantTimeCompare(check, sum[:checksumSize]) != 1 {
		return nil, fmt.Errorf("%w: the checksum is wrong; was all of it pasted?", ErrText)
	}
	return payload, nil
}

// normalText is what a person pasted, as it was printed.
func normalText(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		if 'A' <= r && r <= 'Z' { // not unicode.ToLower: it makes a k of the Kelvin sign
			return r + 'a' - 'A'
		}
		return r
	}, text)
	for _, quote := range []string{`"`, `'`} {
		if len(text) >= 2 && strings.HasPrefix(text, quote) && strings.HasSuffix(text, quote) {
			return text[1 : len(text)-1]
		}
	}
	return text
}
