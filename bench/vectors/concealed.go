package vectors

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// HoldConcealed fails where a formatting verb prints a part of the secret for a
// value that holds it: by itself, behind a pointer, and inside of others.
func HoldConcealed(t *testing.T, secret []byte, value any) {
	t.Helper()
	traces := Traces(secret)
	type open struct{ Value any }
	type closed struct{ value any }
	for _, v := range []any{value, &value, []any{value}, map[string]any{"": value}, open{value}, &open{value}, closed{value}, &closed{value}, []closed{{value}}} {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flags := range []string{"", "+", "#", " ", "-", "0", "#+", "40", ".40"} {
				format := "%" + flags + string(verb)
				printed := strings.ToLower(fmt.Sprintf(format, v))
				for _, trace := range traces {
					if strings.Contains(printed, trace) {
						t.Fatalf("%s of %T with %T prints the secret: %s", format, v, value, printed)
					}
				}
			}
		}
	}
}

// Traces are the forms, in lower case, in which a piece of the secret could
// show: as it is, in hex, in base64, as Go's fmt writes bytes.
func Traces(secret []byte) []string {
	piece := secret[:8]
	numbers := make([]string, 0, 4)
	for _, format := range []string{"%d", "%#x", "%x", "%b", "%o"} {
		for _, between := range []string{" ", ", "} {
			var each []string
			for _, b := range piece[:5] {
				each = append(each, fmt.Sprintf(format, b))
			}
			numbers = append(numbers, strings.Join(each, between))
		}
	}
	return append(numbers,
		strings.ToLower(string(piece)), hex.EncodeToString(piece), fmt.Sprintf("% x", piece),
		strings.ToLower(base64.StdEncoding.EncodeToString(secret)[:11]),
		strings.ToLower(strings.Trim(fmt.Sprintf("%q", piece), `"`)))
}
