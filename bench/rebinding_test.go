package bench

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire"
	"openscope/wire/call"
)

// N2: an address translator between an end and the relay forgets its port while
// output comes. Nobody sees it: the connection stands, and goes on within a second.
func TestARebindingDuringAStreamIsNotSeen(t *testing.T) {
	for name, c := range map[string]struct {
		flow  int // whose port is forgotten: the daemon has come first
		pause string
	}{
		"the client's, a line every 50 ms":  {1, "0.05"},
		"the client's, a line every 300 ms": {1, "0.3"},
		"the daemon's, a line every 50 ms":  {0, "0.05"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var box *middlebox
			w := newWorldWith(t, worldConfig{behind: func(r wire.Relay) wire.Relay {
				box, r = newMiddlebox(t, r)
				return r
			}})
			w.takesItsTime()
			_, h := w.open("10m", "test.steps", "test.bulk", "test.hold")
			s := w.returning(h, nil)
			lines := new(atomic.Int64)
			const all = 100_000
			done := make(chan struct{})
			var r client.Result
			go func() {
				defer close(done)
				r, _ = s.Call(t.Context(), "test.steps", params("name", "a", "lines", fmt.Sprint(all), "pause", c.pause), counter{lines}, io.Discard)
			}()
			seen := func() int { return int(lines.Load()) }
			until(t, 20*time.Second, "the call runs", func() bool { return seen() > 5 })
			for range rebindings {
				stop := make(chan struct{})
				paused := pauses(seen, stop)
				box.rebind(c.flow)
				time.Sleep(4 * time.Second) // in which whatever goes wrong shows
				close(stop)
				longest := <-paused
				t.Logf("nothing came for %v at most", longest)
				if longest > time.Second {
					t.Errorf("nothing came for %v", longest)
				}
			}
			if n := box.senders(); n != 2 {
				t.Errorf("%d connections were made, not two", n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if <-done; r.Cause != call.Cut {
				t.Errorf("the call ended with %v: %s", r.Cause, r.Reason)
			}
		})
	}
}

// counter counts lines.
type counter struct{ lines *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b == '\n' {
			c.lines.Add(1)
		}
	}
	return len(p), nil
}
