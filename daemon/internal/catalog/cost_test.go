package catalog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// No file keeps the daemon busy for long, whatever stands in it.
func TestNoFileKeepsTheParserBusy(t *testing.T) {
	const most = 10 * time.Second // with the race detector, on a busy machine; it was minutes
	many := new(strings.Builder)
	for i := range 20_000 {
		fmt.Fprintf(many, "  app.v%d: {}\n", i)
	}
	for name, text := range map[string]string{
		"one key many times":       strings.Repeat("a: [1]\n", 70_000),
		"one verb many times":      "verbs:\n" + strings.Repeat("  app.v: {summary: a}\n", 20_000),
		"many verbs":               "verbs:\n" + many.String(),
		"many mappings of one key": strings.Repeat("- {a: 1, a: 1}\n", 30_000),
		"mappings in mappings":     strings.Repeat("{a: ", 9_000),
		"mappings that are closed": strings.Repeat("{a: ", 5_000) + "1" + strings.Repeat("}", 5_000),
		"lists in lists":           strings.Repeat("[", 9_000),
		"an alias of aliases":      "a: &a [1]\nb: &b [" + strings.Repeat("*a,", 100_000) + "]\n",
	} {
		began := time.Now()
		_, err := Parse("verbs.yaml", []byte(text))
		if took := time.Since(began); took > most || err == nil || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
			t.Errorf("%s: %v for %d bytes: %.200v", name, took, len(text), err)
		}
	}
}
