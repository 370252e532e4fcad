package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// relayLeg is a leg by a relay that may keep back what it carries.
type relayLeg struct {
	wire.Leg
	upTo   int // of the client's writes pass; negative: all
	downTo int // of the daemon's bytes pass; negative: all
	gone   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	saw   bytes.Buffer // what the client sent
	sent  int
	taken int
}

func (l *relayLeg) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.saw.Write(p)
	l.sent++
	pass := l.upTo < 0 || l.sent <= l.upTo
	l.mu.Unlock()
	if !pass {
		return len(p), nil
	}
	return l.Leg.Write(p)
}

func (l *relayLeg) Read(p []byte) (int, error) {
	if l.downTo < 0 {
		return l.Leg.Read(p)
	}
	left := l.downTo - l.taken
	if left == 0 {
		<-l.gone
		return 0, io.ErrClosedPipe
	}
	n, err := l.Leg.Read(p[:min(left, len(p))])
	l.taken += n
	return n, err
}

func (l *relayLeg) Reset() {
	l.once.Do(func() { close(l.gone) })
	l.Leg.Reset()
}

// refusedLeg is what a relay that does not know the session gives.
type refusedLeg struct{ *pipeLeg }

func (refusedLeg) Read([]byte) (int, error)    { return 0, wire.ErrRefused }
func (refusedLeg) Write(p []byte) (int, error) { return len(p), nil }

// relays is the ways of a handle: the first so many are bad in the given way,
// and one behind them is honest.
type relays struct {
	daemon   *scriptedDaemon
	finished atomic.Int32
	join     func(context.Context, tunnel.ClientConfig) (wire.Leg, error)

	mu    sync.Mutex
	tried []string
	legs  map[string]*relayLeg
}

// A relay of the handle, by what it does.
var relayNames = []string{"dead", "swallows all", "keeps msg2", "keeps FINISHED", "keeps READY", "refuses", "honest"}

func (r *relays) reach(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
	name := cfg.Relays[0].Address
	r.mu.Lock()
	r.tried = append(r.tried, name)
	r.mu.Unlock()
	up, down := -1, -1
	switch name {
	case "dead":
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case "refuses":
		ours, _ := newLegs()
		return refusedLeg{ours}, nil
	case "swallows all":
		up = 0
	case "keeps msg2":
		down = 0
	case "keeps FINISHED":
		up = 1
	case "keeps READY":
		down = channel.Msg2Size(channel.Sealed)
	}
	leg, err := r.join(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &relayLeg{Leg: leg, upTo: up, downTo: down, gone: make(chan struct{})}
	r.mu.Lock()
	r.legs[name] = l
	r.mu.Unlock()
	return l, nil
}

func newRelays(t *testing.T, names ...string) *relays {
	r := &relays{daemon: newScriptedDaemon(t, true), legs: make(map[string]*relayLeg)}
	d := r.daemon
	var all []wire.Relay
	for _, name := range names {
		all = append(all, wire.Relay{Address: name})
	}
	d.resealed(all...)
	r.join = d.join(func(c *channel.Conn) {
		r.finished.Add(1)
		d.welcome(c)
		for {
			req, request, ok := nextCall(c)
			if !ok {
				return
			}
			d.end(c, call.Result{ID: req.ID, Cause: call.Exited, Stdout: digest(""), Stderr: digest("")}, request)
		}
	})
	return r
}

func (r *relays) connect(t *testing.T) *Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := Connect(ctx, Config{
		Handle: r.daemon.handle, Identity: r.daemon.identity, StateDir: t.TempDir(), Rand: rand.Reader, Join: r.reach, Redial: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestADeadOrHostileRelayCostsAtMostTwoSeconds(t *testing.T) {
	for _, bad := range relayNames[:len(relayNames)-1] {
		t.Run(bad, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelays(t, bad, "honest")
				began := time.Now()
				s := r.connect(t)
				took := time.Since(began)
				if took > 2*time.Second {
					t.Errorf("it cost %v", took)
				}
				t.Logf("it cost %v", took)
				if got, err := s.Call(t.Context(), "test.verb", nil, io.Discard, io.Discard); err != nil || !got.Complete {
					t.Errorf("a call: %v, %v", got.Cause, err)
				}
				r.learnedNothing(t, bad)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// learnedNothing looks for anything that the bad relay was told and the honest
// one too: all of it is of this connection alone.
func (r *relays) learnedNothing(t *testing.T, bad string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	told, honest := r.legs[bad], r.legs["honest"]
	if told == nil {
		return // it was told nothing at all
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	honest.mu.Lock()
	defer honest.mu.Unlock()
	const window = 8
	for at := 0; at+window <= told.saw.Len(); at++ {
		if bytes.Contains(honest.saw.Bytes(), told.saw.Bytes()[at:at+window]) {
			t.Fatalf("bytes %d to %d were told to both", at, at+window)
		}
	}
}

func TestFINISHEDIsForOneRelayAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t, "honest", "honest too", "honest as well")
		slow := r.join
		r.join = func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
			time.Sleep(5*time.Second - time.Duration(len(cfg.Relays[0].Address))*100*time.Millisecond)
			return slow(ctx, cfg)
		}
		s := r.connect(t)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.finished.Load(); n != 1 || len(r.tried) != 3 {
			t.Errorf("%d of %d relays had FINISHED", n, len(r.tried))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// With nobody to take its place, one that is slow is waited for.
func TestASlowRelayIsWaitedForWhereThereIsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t, "honest", "dead")
		fast := r.daemon.join(func(c *channel.Conn) { time.Sleep(4 * time.Second); r.daemon.welcome(c); drain(c) })
		r.join = fast
		s := r.connect(t)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestALostRelayIsTriedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t, "honest", "honest too")
		s := r.connect(t)
		r.mu.Lock()
		first := r.legs["honest"]
		r.mu.Unlock()
		first.Reset()
		time.Sleep(time.Second)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.tried) != 2 || r.tried[1] != "honest too" || s.Away() {
			t.Errorf("tried: %q; away: %v", r.tried, s.Away())
		}
		go s.Close()
		<-s.Done()
	})
}
