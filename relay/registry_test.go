package relay

import (
	"runtime"
	"testing"
	"weak"

	"openscope/wire"
)

// What a client costs has to go with it, and not with its session.
func TestALegThatEndedIsNotHeldByItsSession(t *testing.T) {
	g := newRegistry()
	d := &standing{account: &account{}}
	g.arrive(d)
	s := &registered{rid: wire.RendezvousID{1}, daemon: d}
	g.sessions[s.rid] = s
	var legs []weak.Pointer[leg]
	for range wire.LegsPerSession {
		l, _, ok := g.enter(s, nil)
		if !ok {
			t.Fatal("the session takes no leg")
		}
		legs = append(legs, weak.Make(l))
	}
	for _, i := range []int{3, 0, wire.LegsPerSession - 1, 1, 2, 4, 5, 6} { // from the middle, the first, the last, the rest
		g.exit(s, legs[i].Value())
		runtime.GC()
		if legs[i].Value() != nil {
			t.Errorf("leg %d has ended and is held", i)
		}
	}
	for _, l := range legs {
		if l.Value() != nil {
			t.Error("a leg that has ended is held again")
		}
	}
	runtime.KeepAlive(s)
}
