package session

import (
	"errors"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/passport"
	"openscope/wire/call"
)

// The model is three numbers: when the parent ends, when the child would by
// itself, and the cap. Ten thousand sequences of extensions of either, and of
// clocks that move by themselves and are set, must agree with it.
func TestAChildsTimeIsNeverMoreThanItsParents(t *testing.T) {
	random := mrand.New(mrand.NewPCG(3, 4))
	refused, ended := 0, 0
	for range 10_000 {
		clock := newHandClock()
		opened := clock.boot
		parentEnds := opened + time.Duration(1+random.Int64N(1800))*time.Second
		parent, err := NewLifetime(clock, parentEnds-opened, HardCap)
		if err != nil {
			t.Fatal(err)
		}
		ttl := time.Duration(1+random.Int64N(1800)) * time.Second
		child, err := parent.Below(ttl)
		if fits := opened+ttl <= parentEnds; (err == nil) != fits {
			t.Fatalf("a child of %v under %v: %v", ttl, parentEnds-opened, err)
		}
		if err != nil {
			refused++
			continue
		}
		childEnds := opened + ttl
		for range 12 {
			step := time.Duration(random.Int64N(400)) * time.Second
			clock.step(step*time.Duration(random.IntN(2)), step)
			extra := time.Duration(random.Int64N(2200)-100) * time.Second
			now, whose := clock.boot, child
			over := now >= min(childEnds, parentEnds)
			most := min(parentEnds, opened+HardCap)
			if random.IntN(2) == 0 {
				whose, over, most = parent, now >= parentEnds, opened+HardCap
			}
			want := extra > 0 && !over && now+extra <= most
			if err := whose.Extend(extra); (err == nil) != want {
				t.Fatalf("at %v extending by %v: %v, want ok=%v", now-opened, extra, err, want)
			}
			switch {
			case want && whose == parent:
				parentEnds = now + extra
			case want:
				childEnds = now + extra
			}
			left := max(min(childEnds, parentEnds)-now, 0)
			if got := child.Remaining(); (got > 0) != (left > 0) || got > left {
				t.Fatalf("at %v the child has %v, the model says %v", now-opened, got, left)
			}
			if child.Deadline().After(parent.Deadline()) {
				t.Fatal("the child is shown to last longer than its parent")
			}
			if left == 0 {
				ended++
			}
		}
	}
	if refused < 1000 || ended < 1000 {
		t.Errorf("%d refused, %d ended: the test shows little", refused, ended)
	}
}

// racedClock may be moved while others look at it.
type racedClock struct{ passed atomic.Int64 }

func (c *racedClock) Wall() time.Time {
	return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(c.passed.Load()))
}
func (c *racedClock) Boot() time.Duration { return time.Hour + time.Duration(c.passed.Load()) }

// Extending, widening and expiring at one moment: whoever comes first, a session
// that has expired stays so, and none passes its cap.
func TestAnExtensionThatRacesTheEndNeverBringsASessionBack(t *testing.T) {
	won, lost := 0, 0
	for range 10_000 {
		clock := new(racedClock)
		l, err := NewLifetime(clock, time.Second, HardCap)
		if err != nil {
			t.Fatal(err)
		}
		s := New(clock, Config{Lifetime: l, Claim: NewSealedClaim(make([]byte, 32))})
		var extended, widened error
		var racing sync.WaitGroup
		racing.Go(func() { extended = l.Extend(HardCap - time.Minute) })
		racing.Go(func() { clock.passed.Store(int64(2 * time.Second)) })
		racing.Go(func() { // the sweep
			if l.Remaining() == 0 {
				s.End(call.Expired, "its time has passed", clock.Wall())
			}
		})
		racing.Go(func() { widened = s.Widen([]passport.Verb{{Name: "a.b"}}) })
		racing.Wait()
		cause, _ := s.Ended()
		live := s.Live() == nil
		grant, _ := s.Granted()
		switch {
		case extended != nil && !errors.Is(extended, ErrOver):
			t.Fatal(extended)
		case live != (extended == nil && cause == 0):
			t.Fatalf("live %v, extended %v, ended %v", live, extended, cause)
		case (widened == nil) != (len(grant.Verbs) == 1):
			t.Fatalf("widened %v, and it has %d verbs", widened, len(grant.Verbs))
		}
		if extended == nil {
			won++
		} else {
			lost++
		}
		clock.passed.Store(int64(HardCap))
		if s.Live() == nil || l.Remaining() > 0 {
			t.Fatal("alive at the cap")
		}
		if err := l.Extend(time.Second); !errors.Is(err, ErrOver) {
			t.Fatalf("back to life: %v", err)
		}
	}
	t.Logf("%d extensions came first, %d the end", won, lost)
}
