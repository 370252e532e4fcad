package relay_test

import (
	"testing"

	"openscope/wire"
)

// A daemon that has connected anew has left its other connection, which may lead
// nowhere: clients must not wait there.
func TestASessionThatMovesTakesItsClientsAlong(t *testing.T) {
	onEveryRung(t, func(t *testing.T, by rungs) {
		n, d, s := standingBy(t, by)
		client, far, _ := n.pair(s, d)
		bothWays(t, client, far)
		again := n.daemon(n.token("second"))
		s.standOn(t, again)
		cutFor(t, client, by, wire.ErrSuperseded)
		client, far, _ = n.pair(s, again)
		bothWays(t, client, far)
		// To ask for it once more on the same connection ends nothing.
		s.standOn(t, again)
		bothWays(t, client, far)
	})
}
