package call

import (
	"context"
	"errors"
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

func TestTheWindowFollowsThePathAndStaysWithinItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(time.Now)
		f.Open(ID{1})
		var sent uint64
		run := func(perSecond uint64, seconds int) {
			for range seconds * 8 {
				for got := uint64(0); got < perSecond/8; {
					n, _ := take(t, f, ID{1}, Stdout, int(min(perSecond/8-got, 16<<10)))
					sent, got = sent+uint64(n), got+uint64(n)
					if f.inFlight > maxInFlight {
						t.Fatalf("%d bytes in flight", f.inFlight)
					}
					if err := f.Acknowledge(Window{ID: ID{1}, Stdout: sent, Credit: MaxCredit}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second / 8)
			}
		}
		run(100<<20, 2)
		if f.window != maxInFlight {
			t.Errorf("on a fast path the window is %d", f.window)
		}
		if f.inFlight != 0 {
			t.Errorf("everything is acknowledged, and %d in flight", f.inFlight)
		}
	})
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
