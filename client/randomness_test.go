package client

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openscope/wire/call"
	"openscope/wire/channel"
)

var errNoRandomness = errors.New("no randomness")

// failingRand gives so many bytes and then no more: an error at once, or a read
// that is short first.
type failingRand struct {
	short bool

	mu          sync.Mutex
	left, drawn int
}

func (r *failingRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(p), r.left)
	if n == 0 || n < len(p) && !r.short {
		return 0, errNoRandomness
	}
	r.left -= n
	r.drawn += n
	return io.ReadFull(rand.Reader, p[:n])
}

// stopped gives nothing more from here on.
func (r *failingRand) stopped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = 0
}

// C10: a claim, the handshake, a call's id: with a byte too few nothing is
// connected, written down or asked for.
func TestWithoutRandomnessAClientClaimsAndCallsNothing(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{true, false} {
		d := newScriptedDaemon(t, sealed)
		connect := func(r io.Reader, dir string, script func(*channel.Conn)) (*Session, error) {
			s, err := Connect(t.Context(), Config{Handle: d.handle, Identity: d.identity, StateDir: dir, Rand: r, Join: d.join(script)})
			if err == nil {
				t.Cleanup(func() { s.Close() })
			}
			return s, err
		}
		enough := &failingRand{left: 1 << 20}
		asked := make(chan struct{}, 1)
		s, err := connect(enough, t.TempDir(), func(c *channel.Conn) {
			d.welcome(c)
			for {
				typ, _, err := c.Read()
				if err != nil {
					return
				}
				if typ == channel.TypeCall {
					asked <- struct{}{}
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 64, false: 96}[sealed]; enough.drawn != want {
			t.Errorf("sealed %v: a connection draws %d bytes, want %d", sealed, enough.drawn, want)
		}
		for left := range enough.drawn {
			for _, short := range []bool{false, true} {
				dir := t.TempDir()
				_, err := connect(&failingRand{left: left, short: short}, dir, func(*channel.Conn) {
					t.Errorf("sealed %v: FINISHED with %d bytes", sealed, left)
				})
				if entries, read := os.ReadDir(dir); err == nil || read != nil || len(entries) != 0 {
					t.Errorf("sealed %v: with %d bytes: %v, and %d files", sealed, left, err, len(entries))
				}
			}
		}
		for left := range len(call.ID{}) {
			s.rand = &failingRand{left: left, short: left%2 == 1}
			if _, err := s.Call(t.Context(), "test.verb", nil, io.Discard, io.Discard); err == nil {
				t.Errorf("sealed %v: a call with an id of %d bytes", sealed, left)
			}
		}
		if len(asked) != 0 {
			t.Errorf("sealed %v: a call was sent", sealed)
		}
	}
}

// Where no PING can be made any more, the connection ends: a daemon that has
// gone silent would otherwise be waited for without end.
func TestWithoutRandomnessARunningCallIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScriptedDaemon(t, true)
		source := &failingRand{left: 1 << 20}
		s, err := Connect(t.Context(), Config{
			Handle: d.handle, Identity: d.identity, StateDir: t.TempDir(), Rand: source,
			Join: d.join(func(c *channel.Conn) {
				d.welcome(c)
				if _, _, ok := nextCall(c); ok {
					source.stopped()
				}
				drain(c)
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		began := time.Now()
		r, err := s.Call(t.Context(), "test.verb", nil, io.Discard, io.Discard)
		if took := time.Since(began); err != nil || r.Cause != call.Cut || r.Complete || took > 2*pingRunning || !errors.Is(s.Err(), errNoRandomness) {
			t.Errorf("%v after %v, %v: %v", r.Cause, took, err, s.Err())
		}
	})
}
