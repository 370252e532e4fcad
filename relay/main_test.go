package relay_test

import (
	"testing"

	"go.uber.org/goleak"
)

// The promise of every test here: when a relay's context has ended, nothing of
// it runs on.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
