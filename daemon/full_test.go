package daemon

import (
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire/term"
)

// A daemon holds so many sessions and no more: the next one is refused as a limit
// that is reached, and ending one does not make room before its time, for a late
// client is still told why.
func TestADaemonHoldsSoManySessionsAndNoMore(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	open := func() error {
		_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
		return err
	}
	for i := range session.MaxOpen {
		if err := open(); err != nil {
			t.Fatalf("session %d: %v", i+1, err)
		}
	}
	for range 2 {
		if err := open(); term.CodeOf(err) != control.Limited || !strings.Contains(err.Error(), "too many sessions") {
			t.Fatalf("one more: %v", err)
		}
	}
	if got := len(h.sessions.All()); got != session.MaxOpen {
		t.Errorf("%d sessions stand", got)
	}
}
