package seam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each message is read as it was written, and none of it that was cut short.
func TestWhatIsWrittenIsReadAndNoPartOfIt(t *testing.T) {
	pin := wire.Pin{1}
	setup := Setup{
		Relays: []wire.Relay{{Address: "a:1", Pin: &pin}, {Address: "b:2"}}, Roots: []byte("roots"),
		Proxy: Proxy{URL: "http://u:p@proxy:1", Exempt: "*.x", CA: []byte("ca")}, Level: slog.LevelDebug, TryOnly: true,
	}
	served := Served{RID: wire.RendezvousID{1}, Mode: channel.Bearer, HandleHash: [32]byte{2}, Recipient: make([]byte, 32), Keys: channel.KeysOf([32]byte{3})}
	states := []RelayState{{Address: "a:1", Connected: true, Rung: "quic"}, {Address: "b:2", Problem: "no"}}
	tried := Tried{Kind: TriedImpostor, Took: time.Second, Problem: "another", Host: "h"}
	held := Confinement{Landlock: 7, NoNewPrivileges: true}
	took := []wire.Relay{{Address: "node:9", Pin: &pin}, {Address: "b:2"}}
	for name, c := range map[string]struct {
		body []byte
		read func([]byte) (any, error)
		want any
	}{
		"setup":  {setup.append(nil), func(b []byte) (any, error) { return parseSetup(b) }, setup},
		"served": {served.append(nil), func(b []byte) (any, error) { s, err := parseServed(b); return fmt.Sprint(s.RID, s.Keys.Reveal()), err }, fmt.Sprint(served.RID, served.Keys.Reveal())},
		"states": {appendStates(nil, states), func(b []byte) (any, error) { return parseStates(b, setup.Relays) }, states},
		"tried":  {tried.append(nil), func(b []byte) (any, error) { return parseTried(b) }, tried},
		"held":   {held.append(nil), func(b []byte) (any, error) { return parseConfinement(b) }, held},
		"relays": {appendRelays(nil, setup.Relays, took, nil), func(b []byte) (any, error) { r, _, err := parseRelays(b, setup.Relays); return r, err }, took},
	} {
		if got, err := c.read(c.body); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
		for n := range c.body {
			if got, err := c.read(c.body[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are %+v", name, n, len(c.body), got)
			}
		}
		if _, err := c.read(append(c.body[:len(c.body):len(c.body)], 0)); err == nil {
			t.Errorf("%s: a byte more is taken", name)
		}
	}
	for _, text := range []string{fmt.Sprint(setup.Proxy), fmt.Sprintf("%+v %#v", setup, setup)} {
		if strings.Contains(text, "u:p@") {
			t.Errorf("the proxy's password is printed: %s", text)
		}
	}
}

// A session is made known only by relays that are configured, whatever a net half
// says: their pins stay.
func TestANetHalfCanNameNoRelayOfItsOwn(t *testing.T) {
	pin := wire.Pin{1}
	configured := []wire.Relay{{Address: "a:1", Pin: &pin}}
	for name, body := range map[string][]byte{
		"one too many":        encoder{2, 0}.text("a:1", 9).byte(1).text("b:2", 9),
		"the same twice":      encoder{2, 0}.text("a:1", 9).byte(0).text("a:1", 9),
		"one not configured":  encoder{1, 1}.text("b:2", 9),
		"no address":          encoder{1, 0}.text("", 9),
		"an address and more": encoder{1, 0}.text("a:1 b", 9),
	} {
		if got, _, err := parseRelays(body, configured); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	got, _, err := parseRelays(encoder{1, 0}.text("evil:1", 9), configured)
	if err != nil || got[0].Pin == nil || *got[0].Pin != pin {
		t.Errorf("by another address the pin is another: %+v, %v", got, err)
	}
}

// stalling is a net half of which some connections take nothing.
type stalling struct {
	mu    sync.Mutex
	core  Authority
	taken map[ConnID]int
	open  chan struct{} // closed: nothing stalls any more
}

type stallingPeer struct {
	half   *stalling
	id     ConnID
	stalls bool
}

func (h *stalling) Run(ctx context.Context) { <-ctx.Done() }
func (h *stalling) Register(context.Context, wire.RendezvousID) ([]wire.Relay, error) {
	return nil, errors.New("no")
}
func (h *stalling) Serve(Served)                                 {}
func (h *stalling) Stand(wire.RendezvousID)                      {}
func (h *stalling) Drop(wire.RendezvousID)                       {}
func (h *stalling) Relays() []RelayState                         { return nil }
func (h *stalling) Try(context.Context, int, int) (Tried, error) { return Tried{}, nil }
func (p *stallingPeer) Continue(call.ID, uint64, uint64)         {}
func (p *stallingPeer) End(call.ID, []byte, []byte) error        { return nil }
func (p *stallingPeer) Notify(call.Notice) error                 { return nil }
func (p *stallingPeer) Issue(passport.Signed) error              { return nil }
func (p *stallingPeer) Probe(context.Context) error              { return nil }
func (p *stallingPeer) Close(call.Close)                         {}
func (p *stallingPeer) Output(ctx context.Context, _ call.ID, _ call.Stream, data []byte) (int, error) {
	if p.stalls {
		select {
		case <-ctx.Done():
			return len(data) / 2, context.Cause(ctx)
		case <-p.half.open:
		}
	}
	p.half.mu.Lock()
	defer p.half.mu.Unlock()
	p.half.taken[p.id] += len(data)
	return len(data), nil
}

// pipeTo is a core's end of a pipe to that net half, with so many connections
// attached, of which the first stalls.
func pipeTo(t *testing.T, n int) (*stalling, *strict, *link) {
	t.Helper()
	h := &stalling{taken: make(map[ConnID]int), open: make(chan struct{})}
	core := &strict{t: t, peers: make(map[ConnID]Peer)}
	ours, theirs := net.Pipe()
	l := newLink(ours, core, nil, slog.New(slog.DiscardHandler), func(*Confinement, []RelayState) {})
	var running sync.WaitGroup
	running.Go(func() { _ = l.run() })
	built := make(chan struct{})
	running.Go(func() {
		_ = Serve(context.Background(), theirs, Confinement{}, func(a Authority, _ Setup, _ *slog.Logger, _ func([]RelayState)) (Half, error) {
			h.core = a
			close(built)
			return h, nil
		})
	})
	t.Cleanup(func() { l.fail(io.EOF); running.Wait() })
	if err := l.send(Setup{}.append(frame(kindSetup, 0, 64)), false); err != nil {
		t.Fatal(err)
	}
	<-built
	for i := range n {
		id := ConnID{byte(i + 1)}
		if err := h.core.Attach(id, &stallingPeer{half: h, id: id, stalls: i == 0}, Attachment{}); err != nil {
			t.Fatal(err)
		}
	}
	return h, core, l
}

// hesitant is a net half that takes its time to serve a session.
type hesitant struct {
	stalling
	served chan struct{}
}

func (h *hesitant) Serve(Served) { <-h.served }

// A handle is given out once its session is served: who has it may come at once.
func TestASessionIsServedBeforeServeReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hesitant{served: make(chan struct{})}
		ours, theirs := net.Pipe()
		var half sync.WaitGroup
		s := NewSupervisor(Config{Core: &strict{t: t}, Logger: slog.New(slog.DiscardHandler), Start: func(context.Context) (Running, error) {
			half.Go(func() {
				_ = Serve(context.Background(), theirs, Confinement{}, func(Authority, Setup, *slog.Logger, func([]RelayState)) (Half, error) { return h, nil })
			})
			return Running{Conn: ours, Stop: func() error { half.Wait(); return nil }}, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		synctest.Wait()
		done := make(chan struct{})
		go func() {
			s.Serve(Served{RID: wire.RendezvousID{1}, Mode: channel.Bearer, Keys: channel.KeysOf([32]byte{3})})
			close(done)
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Error("it returns before the session is served")
		default:
		}
		close(h.served)
		<-done
		cancel()
		running.Wait()
	})
}

// A connection that takes nothing holds up nobody else on the pipe, and no more of
// its output is kept on the way than a chunk for each of its streams.
func TestAConnectionThatStallsHoldsUpNoOther(t *testing.T) {
	h, core, l := pipeTo(t, 3)
	const calls = 40
	ctx, cancel := context.WithCancel(t.Context())
	var stalled sync.WaitGroup
	sent := make([]int, calls)
	for i := range calls {
		stalled.Go(func() {
			sent[i], _ = core.peers[ConnID{1}].Output(ctx, call.ID{byte(i)}, call.Stdout, make([]byte, 1<<20))
		})
	}
	data := make([]byte, 1<<20)
	for _, id := range []ConnID{{2}, {3}} {
		if n, err := core.peers[id].Output(t.Context(), call.ID{1}, call.Stdout, data); n != len(data) || err != nil {
			t.Errorf("another connection: %d bytes, %v", n, err)
		}
	}
	l.mu.Lock()
	l.pipe.mu.Lock()
	queued := l.queued
	l.pipe.mu.Unlock()
	l.mu.Unlock()
	if queued > calls*(MaxChunk+64) {
		t.Errorf("%d bytes wait in the pipe for %d calls", queued, calls)
	}
	cancel()
	stalled.Wait()
	for i, n := range sent { // what the net half said, when it was told to give up
		if n != MaxChunk/2 {
			t.Errorf("call %d: %d bytes are said to be sent", i, n)
		}
	}
	if h.taken[ConnID{1}] != 0 {
		t.Errorf("the stalling connection took %d bytes", h.taken[ConnID{1}])
	}
}

// A net half that answers nothing any more keeps nobody waiting beyond CLOSE.
func TestAConnectionThatWasClosedIsGivenUp(t *testing.T) {
	_, core, _ := pipeTo(t, 1)
	p := core.peers[ConnID{1}]
	done := make(chan error, 1)
	go func() {
		_, err := p.Output(t.Context(), call.ID{1}, call.Stdout, []byte("never"))
		done <- err
	}()
	p.Close(call.Close{Cause: call.Revoked})
	select {
	case err := <-done:
		if err == nil {
			t.Error("it is said to be sent")
		}
	case <-time.After(goneAfter + 2*time.Second):
		t.Error("it is waited for still")
	}
}

// Whatever makes a pipe end, what waits for the other half is told so, and its
// connections are detached.
func TestTheEndOfAPipeEndsEverythingOnIt(t *testing.T) {
	_, core, l := pipeTo(t, 2)
	p := core.peers[ConnID{1}]
	done := make(chan error, 1)
	go func() {
		_, err := p.Output(t.Context(), call.ID{1}, call.Stdout, []byte("never"))
		done <- err
	}()
	runtime.Gosched()
	l.fail(errors.New("enough"))
	if err := <-done; err == nil {
		t.Error("output is said to be sent")
	}
	if err := p.Notify(call.Notice{Kind: call.NoticeReason}); err == nil {
		t.Error("a notice is said to be sent")
	}
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		core.mu.Lock()
		n := len(core.peers)
		core.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are attached still", n)
		}
	}
}
