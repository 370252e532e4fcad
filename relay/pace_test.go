package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// However many come at once, handshakes begin one after another, and nobody is
// kept waiting for longer than a handshake can stand.
func TestHandshakesBeginOneAfterAnother(t *testing.T) {
	t.Parallel()
	p, now := newPace(100), time.Now()
	for i := range 101 {
		turn, ok := p.reserve(now)
		if want := now.Add(time.Duration(i) * 10 * time.Millisecond); !ok || !turn.Equal(want) {
			t.Fatalf("turn %d is at %v, %v", i, turn.Sub(now), ok)
		}
	}
	if _, ok := p.reserve(now); ok {
		t.Error("one more waits for longer than queueTime")
	}
	if turn, ok := p.reserve(now.Add(time.Minute)); !ok || !turn.Equal(now.Add(time.Minute)) {
		t.Error("after a quiet minute the next has to wait")
	}
}

func TestHandshakesYieldWhereTheProcessorsAreBusy(t *testing.T) {
	t.Parallel()
	p := newPace(100)
	for range 100 {
		p.begin(time.Now(), late+1)
	}
	if p.spacing != 10*time.Millisecond*paceRange {
		t.Errorf("turns that come late leave a spacing of %v", p.spacing)
	}
	for range 200 {
		p.begin(time.Now(), late)
	}
	if p.spacing != 10*time.Millisecond {
		t.Errorf("turns in time leave a spacing of %v", p.spacing)
	}
	for i := range 3200 { // one in thirty-two: the odd one
		p.begin(time.Now(), time.Duration(1-min(i%32, 1))*time.Second)
	}
	if p.spacing > 15*time.Millisecond {
		t.Errorf("the odd late turn leaves a spacing of %v", p.spacing)
	}
}

// A relay that forwards much begins few handshakes, and as many as before once
// it does not.
func TestHandshakesYieldToWhatIsForwarded(t *testing.T) {
	t.Parallel()
	p, now := newPace(100), time.Now()
	turns := func() (n int) {
		for ok := true; ok; n++ {
			_, ok = p.reserve(now)
		}
		now = now.Add(time.Minute)
		return n - 1
	}
	p.yield(now)
	if n := turns(); n != 100/paceRange+1 {
		t.Errorf("%d turns in a second of forwarding", n)
	}
	if n := turns(); n != 101 {
		t.Errorf("%d turns in a second without", n)
	}
	// Turns that were given before are taken as few at a time.
	begun := 0
	p.yield(now)
	for i := range 100 {
		if p.begin(now.Add(time.Duration(i)*10*time.Millisecond), 0) {
			begun++
		}
	}
	if begun > 2*100/paceRange+1 {
		t.Errorf("of 100 turns given before, %d begin", begun)
	}
}

// Who was given a turn before forwarding began waits longer, and is not sent away.
func TestWhoLosesATurnIsGivenAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, began := newDoor(Limits{Handshakes: 100}.withDefaults()), time.Now()
		var waiting sync.WaitGroup
		for range 4 {
			v, err := d.enter(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)})
			if err != nil {
				t.Fatal(err)
			}
			waiting.Go(func() {
				if err := v.await(t.Context()); err != nil {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		}
		d.pace.yield(time.Now())
		waiting.Wait()
		if took := time.Since(began); took < 3*d.pace.slowest/2 {
			t.Errorf("four have begun within %v", took)
		}
	})
}

func TestANewcomerWaitsForItsTurnOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(Limits{Handshakes: 10}.withDefaults())
		began, turn := time.Now(), time.Now().Add(300*time.Millisecond)
		if err := (&visit{door: d, turn: turn}).await(t.Context()); err != nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("it waited for %v: %v", time.Since(began), err)
		}
		gone := errors.New("it has gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if err := (&visit{door: d, turn: time.Now().Add(time.Hour)}).await(ctx); !errors.Is(err, gone) {
			t.Errorf("one that has gone waits on: %v", err)
		}
	})
}
