package bench

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/tunnel"
)

// hostileLeg stands where the relay does: between the client and the daemon,
// with the bytes in its hand.
type hostileLeg struct {
	wire.Leg
	mu   sync.Mutex
	hold time.Duration       // how long each write towards the daemon is held
	up   func([]byte) []byte // what becomes of bytes to the daemon
	down func([]byte) []byte // and of those to the client
	wg   sync.WaitGroup
	last chan struct{} // closed when the write before has been passed on
}

// hostile joins as a client does and puts a hostileLeg in between.
func hostile(seen **hostileLeg) func(context.Context, tunnel.ClientConfig) (wire.Leg, error) {
	return func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
		leg, err := tunnel.Join(ctx, cfg)
		if err != nil {
			return nil, err
		}
		passed := make(chan struct{})
		close(passed)
		*seen = &hostileLeg{Leg: leg, last: passed}
		return *seen, nil
	}
}

// Write passes bytes on in order, each after its hold, without holding up the
// writer: a relay that delays looks like a slow network.
func (h *hostileLeg) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	data, before, passed := bytes.Clone(p), h.last, make(chan struct{})
	if h.up != nil {
		data = h.up(data)
	}
	h.last = passed
	held := time.NewTimer(h.hold)
	h.wg.Go(func() {
		defer close(passed)
		<-held.C
		<-before
		_, _ = h.Leg.Write(data) // a leg that has gone meanwhile is what the test looks at
	})
	return len(p), nil
}

func (h *hostileLeg) Read(p []byte) (int, error) {
	n, err := h.Leg.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down != nil {
		copy(p, h.down(p[:n]))
	}
	return n, err
}

func (h *hostileLeg) set(change func(*hostileLeg)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func TestARequestHeldBackForElevenSecondsIsNotExecuted(t *testing.T) {
	for _, c := range []struct {
		name string
		hold time.Duration
		runs int
	}{
		{"held for 2 seconds", 2 * time.Second, 1},
		{"held for 11 seconds", 11 * time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, h := w.open("5m", "test.mark")
			var between *hostileLeg
			s, err := w.connect(h, hostile(&between))
			if err != nil {
				t.Fatal(err)
			}
			defer between.wg.Wait()
			defer s.Close()
			between.set(func(l *hostileLeg) { l.hold = c.hold })
			ctx, cancel := context.WithTimeout(t.Context(), c.hold+3*time.Second)
			defer cancel()
			var stdout, stderr bytes.Buffer
			r, err := s.Call(ctx, "test.mark", nil, &stdout, &stderr)
			t.Logf("the client was told: %v %v", r.Cause, err)
			if w.marks() != c.runs {
				t.Errorf("held for %v, the request ran %d times, want %d", c.hold, w.marks(), c.runs)
			}
		})
	}
}

func TestAByteChangedByTheRelayEndsTheConnection(t *testing.T) {
	const places = 16 // in a record; the two length bytes are tried by themselves
	for _, c := range []struct {
		name string
		set  func(l *hostileLeg, flip func([]byte) []byte)
	}{
		{"towards the client", func(l *hostileLeg, flip func([]byte) []byte) { l.down = flip }},
		{"towards the daemon", func(l *hostileLeg, flip func([]byte) []byte) { l.up = flip }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for place := range places {
				// Handshakes of one session are held to a rate: each has its own.
				_, h := w.open("5m", "test.echo", "test.mark")
				var between *hostileLeg
				s, err := w.connect(h, hostile(&between))
				if err != nil {
					t.Fatal(err)
				}
				flipped := false // once is enough: what follows must not matter
				flip := func(b []byte) []byte {
					if len(b) > 2 && !flipped {
						b[place*(len(b)-1)/(places-1)] ^= 1 << (place % 8)
						flipped = true
					}
					return b
				}
				between.set(func(l *hostileLeg) { c.set(l, flip) })
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				var stdout, stderr bytes.Buffer
				r, err := s.Call(ctx, "test.echo", params("text", "hello"), &stdout, &stderr)
				cancel()
				if err == nil && (r.Complete || r.Cause != call.Cut) {
					t.Errorf("place %d changed: the client was told %v, complete %v", place, r.Cause, r.Complete)
				}
				select {
				case <-s.Done():
				case <-time.After(20 * time.Second):
					t.Errorf("place %d changed: the connection goes on", place)
				}
				s.Close()
				between.wg.Wait()
			}
		})
	}
}

// keeper is a relay that keeps what a client has sent on one connection, and lets it
// go when the client has long been on another: it does not hear the client's reset.
type keeper struct {
	*hostileLeg
	left chan struct{}
	once sync.Once
}

func (k *keeper) Reset() {
	k.once.Do(func() {
		close(k.left)
		_ = k.hostileLeg.SetReadDeadline(time.Now())
		go func() { // ends when all that was held has passed
			k.wg.Wait()
			k.Leg.Reset()
		}()
	})
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.hostileLeg.Read(p)
	select {
	case <-k.left:
		return 0, errPath
	default:
		return n, err
	}
}

// §7 across a reconnect: a request that is held on one connection is void once the
// client has another, whenever it is let go; and what the client sends again by
// itself is what was asked for just now.
func TestARequestThatIsHeldAcrossAReconnectIsNeverExecutedLate(t *testing.T) {
	for name, c := range map[string]struct {
		hold time.Duration // of what goes to the daemon on the first connection
		away time.Duration // from the call on, until another connection can be made
		runs int           // under any id
	}{
		"let go while the other stands":       {8 * time.Second, 0, 1},
		"let go long after the other":         {14 * time.Second, 0, 1},
		"let go when nobody asks any more":    {16 * time.Second, 12 * time.Second, 0},
		"let go before the other can be made": {11 * time.Second, 12 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, h := w.open("5m", "test.mark")
			var mu sync.Mutex
			var first *keeper
			var back time.Time
			join := func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
				mu.Lock()
				defer mu.Unlock()
				if time.Now().Before(back) {
					return nil, errPath
				}
				if first != nil {
					return tunnel.Join(ctx, cfg)
				}
				var between *hostileLeg
				leg, err := hostile(&between)(ctx, cfg)
				if err != nil {
					return nil, err
				}
				first = &keeper{hostileLeg: leg.(*hostileLeg), left: make(chan struct{})}
				return first, nil
			}
			s := w.returning(h, join)
			mu.Lock()
			first.set(func(l *hostileLeg) { l.hold = c.hold })
			back = time.Now().Add(c.away)
			mu.Unlock()
			began := time.Now()
			r, err := s.Call(t.Context(), "test.mark", nil, io.Discard, io.Discard)
			t.Logf("after %v the client was told: %v, %v", time.Since(began).Round(10*time.Millisecond), r.Cause, err)
			time.Sleep(time.Until(began.Add(c.hold + 3*time.Second))) // all is let go
			if n := w.marks(); n != c.runs {
				t.Errorf("it ran %d times, not %d", n, c.runs)
			}
			if err != nil || (r.Cause == call.Exited) != (c.runs == 1) {
				t.Errorf("the client was told: %v, %v", r.Cause, err)
			}
			first.wg.Wait()
		})
	}
}
