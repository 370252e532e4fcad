package bench

import (
	"regexp"
	"slices"
	"testing"
	"time"
)

// A handle is there at once: one question to the daemon, one round trip to the
// relay. It is the command that is measured, from its start to its end.
func TestAHandleIsPrintedWithin200ms(t *testing.T) {
	w := newWorld(t)
	until(t, 10*time.Second, "the daemon has reached the relay", func() bool {
		return regexp.MustCompile(`"connected":true`).MatchString(w.issuer(0, "status", "--json"))
	})
	var took []time.Duration
	for range 11 {
		began := time.Now()
		w.issuer(0, "share", "open", "--agent", "you", "--to", "vendor-b", "--verb", "test.echo")
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("share open took %v (median), %v at most", took[5], took[10])
	if took[5] > 200*time.Millisecond {
		t.Errorf("share open takes %v", took[5])
	}
}
