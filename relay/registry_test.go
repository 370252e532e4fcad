package relay

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"openscope/wire"
)

// What a client costs has to go with it, and not with its session.
func TestALegThatEndedIsNotHeldByItsSession(t *testing.T) {
	r, rid, _ := filled(t, 1)
	s, _ := r.registry.find(rid, time.Now())
	for range wire.LegsPerSession {
		if _, _, ok := r.registry.enter(s, nil); !ok {
			t.Fatal("the session takes no leg")
		}
	}
	for left := wire.LegsPerSession; left > 0; left-- {
		ended := s.legs[left/2] // from the middle, and at the end the last and the first
		leg := weak.Make(ended)
		r.registry.exit(s, ended)
		runtime.GC()
		if l := leg.Value(); l != nil {
			t.Errorf("leg %d has ended and is held", l.number)
		}
	}
	runtime.KeepAlive(s)
}
