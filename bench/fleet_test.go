package bench

import (
	"testing"
	"time"

	"openscope/wire/handle"
)

// N4: a daemon stands on three relays, and its handle names them all: the
// first may be gone when the recipient comes.
func TestAHandleNamesThreeNodesAndTheFirstMayBeGone(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, worldConfig{nodes: 3})
	var h handle.Handle
	for deadline := time.Now().Add(10 * time.Second); len(h.Relays) < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("the handle names %v", h.Relays)
		}
		_, h = w.open("5m", "test.echo") // a node that is not up yet is not in it
	}
	w.mustConnect(h)
	w.nodes[0]()
	w.mustConnect(h)
}
