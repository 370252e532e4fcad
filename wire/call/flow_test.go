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
				if allowed := mostInFlight(path.rate, path.delay); most > allowed {
					t.Errorf("%d bytes in flight, of %d", most, allowed)
				}
			})
		})
	}
}

// mostInFlight is twice what a path holds whose ends are awake, with the piece that
// is being acknowledged and a fifth for measuring.
func mostInFlight(rate uint64, delay time.Duration) uint64 {
	const piece = 16 << 10
	holds := uint64(float64(rate) * delay.Seconds())
	return min((2*(holds+piece)+rate*uint64(slack)/uint64(time.Second)+piece)*5/4, maxInFlight, max(rate*5/4, minInFlight))
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

// What ends that sleep have in flight goes again when they are awake: it stands
// before every small call.
func TestLittleIsInFlightOnceTheEndsAreAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		const rate, delay = 64 << 20, 300 * time.Microsecond
		_, asleep := crossPath(t, f, rate, delay, 5*time.Millisecond, 5*time.Second)
		if least := uint64(rate / 1000 * 4); asleep < least {
			t.Fatalf("%d bytes in flight between ends that sleep, want %d", asleep, least)
		}
		crossPath(t, f, rate, delay, 0, 3*time.Second)
		if _, most := crossPath(t, f, rate, delay, 0, 5*time.Second); most > mostInFlight(rate, delay) {
			t.Errorf("%d bytes in flight, of %d", most, mostInFlight(rate, delay))
		}
	})
}

// Output that comes now and then, or that its reader holds up, tells nothing of
// how long the ends sleep.
func TestARestIsNoGap(t *testing.T) {
	for name, credit := range map[string]uint64{"output now and then": MaxCredit, "a reader that stalls": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := NewFlow(time.Now)
				f.Open(ID{1})
				for sent := uint64(1000); sent < 100_000; sent += 1000 {
					take(t, f, ID{1}, Stdout, 1000)
					if credit == 1000 && !blocked(t, f, ID{1}) && sent > 64<<10 {
						t.Fatal("the reader has not stalled")
					}
					time.Sleep(time.Millisecond)
					if err := f.Acknowledge(Window{ID: ID{1}, Stdout: sent, Credit: credit}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second / 10)
				}
				if gap := f.gaps.measure(); gap != 0 {
					t.Errorf("a gap of %v", gap)
				}
			})
		})
	}
}

func TestAGapBeginsAfterTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		time.Sleep(time.Second)
		take(t, f, ID{1}, Stdout, startInFlight)
		if !blocked(t, f, ID{1}) { // for a millisecond
			t.Fatal("there is more in flight than the bound")
		}
		if err := f.Acknowledge(Window{ID: ID{1}, Stdout: startInFlight, Credit: MaxCredit}); err != nil {
			t.Fatal(err)
		}
		if gap := f.gaps.measure(); gap <= 0 || gap > time.Millisecond {
			t.Errorf("a gap of %v", gap)
		}
		take(t, f, ID{1}, Stdout, 1000) // and more could be sent
		time.Sleep(time.Second)
		before := f.gaps.measure()
		if err := f.Acknowledge(Window{ID: ID{1}, Stdout: startInFlight + 1000, Credit: MaxCredit}); err != nil {
			t.Fatal(err)
		}
		if gap := f.gaps.measure(); gap != before {
			t.Errorf("a gap of %v, after one of %v", gap, before)
		}
	})
}

// Whoever never acknowledges in time gets no more in flight for it than ends that
// sleep do.
func TestALongGapCountsForNoMoreThanTheBound(t *testing.T) {
	d := delay{begun: time.Now(), least: time.Millisecond}
	if got := d.room(time.Now(), time.Second); got != longestGap {
		t.Errorf("room for %v", got)
	}
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
