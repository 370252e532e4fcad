package call

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// take takes at once, or fails the test.
func take(t *testing.T, f *Flow, id ID, s Stream, n int) (int, uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, offset, err := f.Take(ctx, id, s, n)
	if err != nil {
		t.Fatalf("taking %d: %v", n, err)
	}
	return got, offset
}

// blocked reports whether a taker has to wait.
func blocked(t *testing.T, f *Flow, id ID) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, _, err := f.Take(ctx, id, Stdout, 1)
	return errors.Is(err, context.DeadlineExceeded)
}

func TestACallBeginsWith64KiBOfCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		if n, offset := take(t, f, ID{1}, Stdout, 100_000); n != 64<<10 || offset != 0 {
			t.Errorf("%d bytes from %d", n, offset)
		}
		if !blocked(t, f, ID{1}) {
			t.Error("there is more without a WINDOW")
		}
	})
}

func TestAStalledCallLeavesTheOthersTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		f.Open(ID{2})
		take(t, f, ID{1}, Stdout, 64<<10)
		// The first one's reader has stopped: it acknowledges, and gives no credit.
		if err := f.Acknowledge(Window{ID: ID{1}, Stdout: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		if !blocked(t, f, ID{1}) {
			t.Error("a call without credit goes on")
		}
		if n, _ := take(t, f, ID{2}, Stdout, 1000); n != 1000 {
			t.Errorf("the other one gets %d", n)
		}
	})
}

func TestOffsetsAreEachStreamsOwn(t *testing.T) {
	f := NewFlow(time.Now)
	f.Open(ID{1})
	for _, c := range []struct {
		s      Stream
		n      int
		offset uint64
	}{{Stdout, 10, 0}, {Stderr, 5, 0}, {Stdout, 10, 10}, {Stderr, 5, 5}} {
		if _, offset := take(t, f, ID{1}, c.s, c.n); offset != c.offset {
			t.Errorf("stream %d begins at %d, want %d", c.s, offset, c.offset)
		}
	}
}

func TestAcknowledgementsThatLieAreRefused(t *testing.T) {
	f := NewFlow(time.Now)
	f.Open(ID{1})
	take(t, f, ID{1}, Stdout, 100)
	if err := f.Acknowledge(Window{ID: ID{1}, Stdout: 50}); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]Window{
		"more than was sent":  {ID: ID{1}, Stdout: 101},
		"on the other stream": {ID: ID{1}, Stdout: 50, Stderr: 1},
		"less than before":    {ID: ID{1}, Stdout: 49},
	} {
		if err := f.Acknowledge(w); !errors.Is(err, ErrFlow) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Acknowledge(Window{ID: ID{9}, Stdout: 1 << 60}); err != nil {
		t.Errorf("of a call that is over: %v", err)
	}
}

func TestTheWindowIsTwiceWhatThePathHolds(t *testing.T) {
	for _, path := range []struct {
		rate  uint64 // bytes a second
		delay time.Duration
	}{
		{20 << 10, 50 * time.Millisecond},
		{1 << 20, 2 * time.Millisecond},
		{1 << 20, 100 * time.Millisecond},
		{20 << 20, 5 * time.Millisecond},
		{20 << 20, 100 * time.Millisecond}, // holds more than may be in flight
	} {
		t.Run(fmt.Sprint(path.rate>>10, " KiB a second, ", path.delay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := NewFlow(time.Now)
				f.Open(ID{1})
				crossPath(t, f, path.rate, path.delay, 0, 3*time.Second) // it learns
				through, most := crossPath(t, f, path.rate, path.delay, 0, 25*time.Second)
				reachable := min(path.rate, uint64(maxInFlight/path.delay.Seconds()))
				if through < reachable*9/10 {
					t.Errorf("%d bytes a second, of %d", through, reachable)
				}
				holds := uint64(float64(path.rate) * path.delay.Seconds())
				piece := uint64(16 << 10)
				allowed := min((2*(holds+piece)+path.rate*3/1000+piece)*5/4, maxInFlight, max(path.rate*5/4, minInFlight))
				if most > allowed {
					t.Errorf("%d bytes in flight, of %d", most, allowed)
				}
			})
		})
	}
}

// Ends on a busy machine read when they are woken, every few milliseconds, if they
// are not just awake: the path between is no slower for that.
func TestAPathWhoseEndsSleepIsKeptBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		const rate, tick = 64 << 20, 3 * time.Millisecond
		crossPath(t, f, rate, 300*time.Microsecond, tick, 3*time.Second)
		through, _ := crossPath(t, f, rate, 300*time.Microsecond, tick, 9*time.Second)
		if through < rate*2/3 {
			t.Errorf("%d bytes a second, of %d", through, rate)
		}
	})
}

// crossPath sends as much as the flow lets through over a path that delivers so
// many bytes a second and acknowledges them after the delay: at the next whole
// tick, but for one tick in ten. It returns bytes a second, and the most that was
// in flight.
func crossPath(t *testing.T, f *Flow, rate uint64, delay, tick, d time.Duration) (through, most uint64) {
	type piece struct {
		n  int
		at time.Time // when its acknowledgement comes
	}
	pieces := make(chan piece, 1<<16)
	var crossed sync.WaitGroup
	began := time.Now()
	received := f.calls[ID{1}].received[0] // nobody acknowledges now
	first := received
	crossed.Go(func() {
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			received += uint64(p.n)
			if err := f.Acknowledge(Window{ID: ID{1}, Stdout: received, Credit: MaxCredit}); err != nil {
				t.Error(err)
			}
		}
	})
	free := began // when the path has delivered everything so far
	for time.Since(began) < d {
		n, _, err := f.Take(t.Context(), ID{1}, Stdout, 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		most = max(most, f.inFlight)
		f.mu.Unlock()
		free = later(free, time.Now()).Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		at := free.Add(delay)
		if tick > 0 && at.Sub(began)/tick%10 != 0 {
			at = began.Add((at.Sub(began)/tick + 1) * tick)
		}
		pieces <- piece{n, at}
	}
	close(pieces)
	crossed.Wait()
	return uint64(float64(received-first) / time.Since(began).Seconds()), most
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestTakersEndWithTheirCallAndTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		f.Open(ID{2})
		take(t, f, ID{1}, Stdout, 64<<10)
		errs := make(chan error, 2)
		for _, id := range []ID{{1}, {2}} {
			go func() {
				_, _, err := f.Take(t.Context(), id, Stdout, 1)
				errs <- err
			}()
		}
		synctest.Wait()
		f.Close(ID{1})
		// What the ended call had in flight is free for the other.
		var first, second error
		first, second = <-errs, <-errs
		if (first == nil) == (second == nil) {
			t.Errorf("one should end and one go on: %v, %v", first, second)
		}
		lost := errors.New("lost")
		f.Fail(lost)
		if _, _, err := f.Take(t.Context(), ID{2}, Stdout, 1); !errors.Is(err, lost) {
			t.Errorf("after the connection's end: %v", err)
		}
		if _, _, err := f.Take(t.Context(), ID{7}, Stdout, 1); err == nil {
			t.Error("a call that was never opened takes")
		}
	})
}
