package relay_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The promise of every test here: when a relay's context has ended, nothing of
// it runs on.
func TestMain(m *testing.M) {
	if what := os.Getenv(floodVariable); what != "" {
		runFlood(what)
		return
	}
	goleak.VerifyTestMain(m)
}
