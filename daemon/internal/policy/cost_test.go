package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// costly are files of half a megabyte, or as many bytes as a parser takes, in
// the forms that are the most work.
func costly() map[string]string {
	distinct := new(strings.Builder)
	for i := range 40_000 {
		fmt.Fprintf(distinct, "k%d: 1\n", i)
	}
	return map[string]string{
		"one key many times":       strings.Repeat("a: [1]\n", 70_000),
		"one key in a flow":        "{" + strings.Repeat("a: 1, ", 80_000) + "}",
		"many keys":                distinct.String(),
		"keys that are lists":      strings.Repeat("? [a]\n: 1\n", 40_000),
		"many mappings of one key": strings.Repeat("- {a: 1, a: 1}\n", 30_000),
		"lists in lists":           strings.Repeat("[", 9_000),
		"mappings in mappings":     strings.Repeat("{a: ", 9_000),
		"a list":                   strings.Repeat("- \n", 150_000),
		"an alias of aliases":      "a: &a [1]\nb: &b [" + strings.Repeat("*a,", 100_000) + "]\n",
		"a long key":               strings.Repeat("k", 500_000) + ": 1\n",
		"a comment":                strings.Repeat("#", 500_000),
		"many users":               "agents:\n  you:\n    users: [" + strings.Repeat("a,", 100_000) + "]\n    allow: []\n",
		"one agent many times":     "agents:\n" + strings.Repeat("  you: {users: [a], allow: []}\n", 15_000),
		"many agents":              "agents:\n" + strings.ReplaceAll(distinct.String(), "k", "  k"),
		"one recipient many times": "recipients:\n" + strings.Repeat("  v: {key: osk1}\n", 25_000),
		"many recipients":          "recipients:\n" + strings.ReplaceAll(distinct.String(), "k", "  k"),
	}
}

// F7, F8: no file keeps the daemon busy for long, whatever stands in it.
func TestNoFileKeepsTheParserBusy(t *testing.T) {
	const most = 10 * time.Second // with the race detector, on a busy machine; it was minutes
	for name, text := range costly() {
		for kind, parse := range map[string]func() error{
			"grants":     func() error { _, err := Parse("grants.yaml", []byte(text)); return err },
			"recipients": func() error { _, err := ParseRecipients("recipients.yaml", []byte(text)); return err },
		} {
			began := time.Now()
			err := parse()
			took := time.Since(began)
			if took > most {
				t.Errorf("%s as %s: %v for %d bytes (%v)", name, kind, took, len(text), err)
			}
			if took > time.Second {
				t.Logf("%s as %s: %v", name, kind, took)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000) {
				t.Errorf("%s as %s: an error of %d bytes: %.200q", name, kind, len(err.Error()), err)
			}
		}
	}
}
