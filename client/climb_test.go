package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// rungLeg is a leg that came by a given way.
type rungLeg struct {
	wire.Leg
	rung tunnel.Rung
}

func (l rungLeg) Rung() tunnel.Rung { return l.rung }

var errNoUDP = errors.New("UDP goes nowhere")

// shaft is a network with a way up that may be blocked, and a daemon whose one
// call counts on every connection from where the last one was.
type shaft struct {
	daemon *scriptedDaemon
	join   func(context.Context, tunnel.ClientConfig) (wire.Leg, error)
	before func(*channel.Conn) // what happens to a connection before its passport

	mu     sync.Mutex
	open   bool // for UDP
	joined []tunnel.Rung
	lost   []error // what the session was told of its connection
	legs   []wire.Leg
}

func newShaft(t *testing.T) *shaft {
	h := &shaft{daemon: newScriptedDaemon(t, true)}
	h.join = h.daemon.join(func(c *channel.Conn) {
		if h.before != nil {
			h.before(c)
		}
		h.daemon.welcome(c)
		h.count(c)
	})
	return h
}

// count answers PINGs, and a call with a byte every 100 ms.
func (h *shaft) count(c *channel.Conn) {
	var counting sync.WaitGroup
	defer counting.Wait()
	defer c.Reset()
	for {
		t, body, err := c.Read()
		if err != nil {
			return
		}
		switch t {
		case channel.TypePing:
			if p, err := call.ParsePing(body); err == nil {
				_ = c.Write(channel.TypePong, call.Pong{Nonce: p.Nonce, Challenge: call.Challenge{2}}.Append(nil))
			}
		case channel.TypeCall:
			req, err := call.ParseRequest(body[:len(body)-signatureSize])
			if err != nil {
				return
			}
			counting.Go(func() {
				for i := range uint64(1000) {
					out := call.Output{ID: req.ID, Stream: call.Stdout, Offset: i, Data: []byte{byte('a' + i%26)}}
					if c.Write(channel.TypeOut, out.Append(nil)) != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
	}
}

func (h *shaft) set(open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = open
}

func (h *shaft) reach(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
	h.mu.Lock()
	open := h.open
	h.mu.Unlock()
	by := tunnel.TCP
	switch {
	case open:
		by = tunnel.QUIC
	case slices.Equal(cfg.Ways.Only, []tunnel.Rung{tunnel.QUIC}):
		select {
		case <-time.After(5 * time.Second):
			return nil, errNoUDP
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	leg, err := h.join(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = append(h.joined, by)
	h.legs = append(h.legs, leg)
	return rungLeg{leg, by}, nil
}

func (h *shaft) ways() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, r := range h.joined {
		all = append(all, r.String())
	}
	return strings.Join(all, " ")
}

func (h *shaft) connect(t *testing.T) *Session {
	t.Helper()
	s, err := Connect(t.Context(), Config{
		Handle: h.daemon.handle, Identity: h.daemon.identity, StateDir: t.TempDir(), Rand: rand.Reader, Join: h.reach, Redial: true,
		OnConnection: func(lost error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lost = append(h.lost, lost)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASessionIsBackOnQUICWithinAMinuteAndSaysNothingOfIt(t *testing.T) {
	for _, blocked := range []time.Duration{0, 12 * time.Second, 31 * time.Second, 10 * time.Minute} {
		t.Run(fmt.Sprint("blocked for ", blocked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newShaft(t)
				s := h.connect(t)
				if s.Way() != "tcp" {
					t.Fatalf("it begins by %s", s.Way())
				}
				time.Sleep(blocked)
				if s.Way() != "tcp" || s.Away() {
					t.Fatalf("an attempt that fails has cost the connection: by %q", s.Way())
				}
				h.set(true)
				began := time.Now()
				for s.Way() != "quic" && time.Since(began) < time.Hour {
					time.Sleep(100 * time.Millisecond)
				}
				t.Logf("back on QUIC after %v", time.Since(began))
				if took := time.Since(began); took > time.Minute {
					t.Errorf("back on QUIC after %v", took)
				}
				time.Sleep(5 * time.Minute)
				if got := h.ways(); got != "tcp quic" || len(h.lost) > 0 {
					t.Errorf("connections: %s; said to be lost: %v", got, h.lost)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWhereQUICIsTheWayNothingIsClimbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newShaft(t)
		h.set(true)
		s := h.connect(t)
		time.Sleep(10 * time.Minute)
		if got := h.ways(); got != "quic" {
			t.Errorf("connections: %s", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The call's list is answered by the daemon of daemon/takeover_test.go and of the
// tests in bench; here it is whether the list is right.
func TestACallGoesUpWithItsSessionFromTheByteItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newShaft(t)
		s := h.connect(t)
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = s.Call(ctx, "test.verb", nil, &out, io.Discard) // it is cancelled below
		}()
		time.Sleep(5 * time.Second)
		first := s.daemon.id
		h.set(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		f := h.daemon.lastFinished()
		s.mu.Lock()
		var came uint64
		for _, p := range s.calls {
			came = p.came[0]
		}
		s.mu.Unlock()
		if s.Way() != "quic" || f.Replaces != first || len(f.Resume) != 1 || f.Resume[0].Stdout != came || came < 60 || uint64(out.Len()) != came {
			t.Errorf("by %s; it replaces %x, %x is meant; the list %+v; %d bytes came, %d were written", s.Way(), f.Replaces, first, f.Resume, came, out.Len())
		}
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The old way may be lost at any moment of the climb, and the new one may lead to
// nobody: the session is left on one or the other, within what a reader waits for.
func TestAClimbThatGoesWrongCostsNoSession(t *testing.T) {
	for name, upset := range map[string]func(h *shaft, c *channel.Conn){
		"the new way falls silent before the passport": func(h *shaft, c *channel.Conn) {
			h.set(false)
			drain(c)
		},
		"the new way is cut before the passport": func(h *shaft, c *channel.Conn) {
			h.set(false)
			c.Reset()
		},
		"the old way is cut meanwhile": func(h *shaft, _ *channel.Conn) {
			h.mu.Lock()
			h.legs[0].Reset()
			h.mu.Unlock()
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newShaft(t)
				s := h.connect(t)
				var once sync.Once
				h.before = func(c *channel.Conn) { once.Do(func() { upset(h, c) }) }
				h.set(true)
				var away time.Duration
				for range 6000 {
					time.Sleep(10 * time.Millisecond)
					if s.Away() {
						away += 10 * time.Millisecond
					}
				}
				if away > climbedWithin+2*time.Second || s.Away() {
					t.Errorf("it was away for %v, and is now: %v", away, s.Away())
				}
				if err := s.Err(); err != nil {
					t.Errorf("the session is over: %v", err)
				}
				t.Logf("away for %v; connections: %s", away, h.ways())
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestASessionThatIsClosedDoesNotClimb(t *testing.T) {
	for _, after := range []time.Duration{0, 9 * time.Second, 12 * time.Second, 15 * time.Second, 18 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h := newShaft(t)
			s := h.connect(t)
			time.Sleep(after) // an attempt is under way in some of them
			began := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("closed after %v, it took %v", after, took)
			}
		})
	}
}
