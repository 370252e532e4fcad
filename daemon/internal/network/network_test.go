package network

import (
	"runtime"
	"testing"
	"weak"

	"openscope/wire"
)

// stillLeg is a leg that nobody uses.
type stillLeg struct{ wire.Leg }

// What a leg holds has to go when it is over, and not with the daemon.
func TestALegThatIsNoStrangerAnyMoreIsNotHeld(t *testing.T) {
	n := new(Half)
	var legs []weak.Pointer[stillLeg]
	var over []func()
	for range 3 {
		leg := new(stillLeg)
		legs = append(legs, weak.Make(leg))
		_, met := n.meet(leg)
		over = append(over, met)
	}
	for _, i := range []int{1, 2, 0} {
		over[i]()
		over[i] = nil // it knows the leg
		runtime.GC()
		if legs[i].Value() != nil {
			t.Errorf("leg %d is over and is held", i)
		}
	}
	runtime.KeepAlive(n)
}
