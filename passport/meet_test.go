package passport

import (
	"math/rand/v2"
	"testing"
)

// hasBoth reports whether a range meets a prefix, which cannot be written.
func hasBoth(g, now Grant) bool {
	ranges, prefixes := 0, 0
	for _, grant := range []Grant{g, now} {
		for _, v := range grant.Verbs {
			for _, p := range v.Params {
				if p.Allowed.Range != nil {
					ranges++
				}
				if p.Allowed.Prefix != "" {
					prefixes++
				}
			}
		}
	}
	return ranges > 0 && prefixes > 0
}

// TestWhatIsLeftOfAGrantIsWhatBothAllow tries every complete call against random
// pairs: what is left holds all that both allow, nothing that the grant does not,
// and where all can be written nothing that the other does not.
func TestWhatIsLeftOfAGrantIsWhatBothAllow(t *testing.T) {
	r := source{rand.New(rand.NewPCG(21, 22))}
	exact, both := 0, 0
	for range narrowedPairs / 10 {
		g, now := r.grant(), r.grant()
		left := g.Meet(now)
		written := !hasBoth(g, now)
		if written {
			exact++
		}
		everyCall(func(verb string, values map[string]string) {
			if !complete(g, verb, values) || !complete(now, verb, values) {
				return
			}
			inG, inNow, inLeft := g.Allows(verb, values) == nil, now.Allows(verb, values) == nil, left.Allows(verb, values) == nil
			if inG && inNow {
				both++
			}
			if inG && inNow && !inLeft || inLeft && !inG || inLeft && !inNow && written {
				t.Fatalf("%s %v: grant %v, other %v, left %v\ngrant %+v\nother %+v\nleft  %+v", verb, values, inG, inNow, inLeft, g, now, left)
			}
		})
		if again := g.Meet(g); len(again.Verbs) > len(g.Verbs) {
			t.Fatalf("a grant grows by itself: %+v, %+v", g, again)
		}
	}
	if exact < 100 || both < 1000 {
		t.Errorf("%d pairs that can be written, %d calls that both allow: the test shows little", exact, both)
	}
}

// complete reports whether the call has every parameter of the verb's
// alternatives: a missing one is judged with its default, which is not compared.
func complete(g Grant, verb string, values map[string]string) bool {
	for _, v := range g.Verbs {
		if v.Name == verb && len(v.Params) != len(values) {
			return false
		}
	}
	return true
}
