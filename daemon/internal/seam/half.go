package seam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
)

// Half is a net half, as the other end of its pipe drives it.
type Half interface {
	Network
	// Run stands on the relays until the context ends.
	Run(ctx context.Context)
	// Stand has a session made known to every relay that comes up.
	Stand(rid wire.RendezvousID)
	// Try tries one way to one relay.
	Try(ctx context.Context, relay, rung int) (Tried, error)
}

// Build makes the net half of what it was told. How relays are reached it tells
// changed, whenever that changes.
type Build func(core Authority, s Setup, logger *slog.Logger, changed func([]RelayState)) (Half, error)

// Serve is a net half's end of the pipe: it builds the half when it is told how,
// and runs it until the pipe ends. It returns when everything of it has ended.
func Serve(ctx context.Context, conn net.Conn, held Confinement, build Build) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &halfEnd{ctx: ctx, build: build, given: make(map[uint32]context.CancelFunc)}
	h.core = &remoteCore{slots: make(chan struct{}, maxAsked), peers: make(map[ConnID]Peer), heard: make(map[heardOf]call.Window)}
	h.pipe = newPipe(conn, func(k kind) (int, bool) {
		most, ok := limits[k]
		return most, ok && k.fromCore()
	})
	h.core.pipe, h.handle = h.pipe, h.take
	if err := h.send(held.append(frame(kindReady, 0, 8)), false); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { h.fail(context.Cause(ctx)) })()
	err := h.run()
	cancel()
	h.running.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil // the core has ended, or has ended this
	}
	return err
}

// halfEnd takes what the core says. It is trusted: a message that makes no sense
// is a bug.
type halfEnd struct {
	*pipe
	core    *remoteCore
	build   Build
	ctx     context.Context
	half    Half           // owned by the reader until it is set, immutable after
	relays  []wire.Relay   // as half
	running sync.WaitGroup // the half, and what it is asked

	mu    sync.Mutex
	given map[uint32]context.CancelFunc // requests that can be given up
}

// take is called by the reader, and waits for nothing.
func (h *halfEnd) take(k kind, id uint32, body []byte) error {
	if (h.half == nil) != (k == kindSetup) {
		return fmt.Errorf("%w: kind %d out of order", errMessage, k)
	}
	switch k {
	case kindSetup:
		return h.begin(body)
	case kindServe:
		s, err := parseServed(body)
		if err != nil {
			return err
		}
		h.half.Serve(s)
		return h.send(frame(kindServe|answerBit, id, 0), false)
	case kindAbort:
		h.mu.Lock()
		defer h.mu.Unlock()
		if stop := h.given[id]; stop != nil {
			stop()
		}
		return nil
	case kindStand, kindDrop:
		return h.session(k, body)
	case kindContinue, kindClose:
		return h.tell(k, body)
	}
	h.start(k, id, body)
	return nil
}

// begin builds the half and runs it.
func (h *halfEnd) begin(body []byte) error {
	s, err := parseSetup(body)
	if err != nil {
		return err
	}
	logger := slog.New(&logHandler{pipe: h.pipe, level: s.Level})
	half, err := h.build(h.core, s, logger, func(states []RelayState) {
		_ = h.send(appendStates(frame(kindRelays, 0, 64), states), false)
	})
	if err != nil {
		return err
	}
	h.half, h.relays = half, s.Relays
	if !s.TryOnly {
		h.running.Go(func() { half.Run(h.ctx) })
	}
	return nil
}

func (h *halfEnd) session(k kind, body []byte) error {
	d := decoder{rest: body}
	rid := wire.RendezvousID(d.id())
	if err := d.end(); err != nil {
		return err
	}
	if k == kindStand {
		h.half.Stand(rid)
		return nil
	}
	h.running.Go(func() { h.half.Drop(rid) }) // it tells the relays
	return nil
}

// tell passes on what needs no answer; what of it is for a connection that is
// gone is for nobody.
func (h *halfEnd) tell(k kind, body []byte) error {
	d := decoder{rest: body}
	p := h.core.peer(d.id())
	if k == kindContinue {
		id, stdout, stderr := call.ID(d.id()), d.u64(), d.u64()
		if p != nil {
			p.Continue(id, stdout, stderr)
		}
		return d.end()
	}
	c, err := call.ParseClose(d.all())
	if p != nil && err == nil {
		p.Close(c)
	}
	return err
}

// start does what is asked beside the reader.
func (h *halfEnd) start(k kind, id uint32, body []byte) {
	ctx, cancel := context.WithCancel(h.ctx)
	h.mu.Lock()
	h.given[id] = cancel
	h.mu.Unlock()
	h.running.Go(func() {
		fill := h.do(ctx, k, body)
		h.mu.Lock()
		delete(h.given, id)
		h.mu.Unlock()
		cancel()
		freeBody(body)
		h.reply(k, id, fill)
	})
}

func (h *halfEnd) do(ctx context.Context, k kind, body []byte) func(encoder) encoder {
	d := &decoder{rest: body}
	switch k {
	case kindRegister:
		took, err := h.half.Register(ctx, wire.RendezvousID(d.id()))
		if err == nil && len(took) == 0 {
			err = errors.New("no relay took it")
		}
		return func(e encoder) encoder { return appendRelays(e, h.relays, took, err) }
	case kindTry:
		t, err := h.half.Try(ctx, int(d.byte()), int(d.byte()))
		if err != nil {
			t = Tried{Kind: TriedFailed, Problem: err.Error()}
		}
		return t.append
	}
	p := h.core.peer(d.id())
	if k == kindOutput {
		return output(ctx, p, d)
	}
	err := errEnded
	if p != nil {
		err = ask(ctx, p, k, d)
	}
	return func(e encoder) encoder { return e.byte(resultOf(err)) }
}

func output(ctx context.Context, p Peer, d *decoder) func(encoder) encoder {
	n, err := 0, errEnded
	if id, s := call.ID(d.id()), call.Stream(d.byte()); p != nil {
		n, err = p.Output(ctx, id, s, d.all())
	}
	return func(e encoder) encoder { return e.byte(resultOf(err)).u32(uint32(n)) }
}

// ask has a connection do what it answers with done or not.
func ask(ctx context.Context, p Peer, k kind, d *decoder) error {
	switch k {
	case kindEnd:
		id, sig := call.ID(d.id()), d.fixed(signature)
		return p.End(id, d.all(), sig)
	case kindNotify:
		n, err := call.ParseNotice(d.all())
		if err != nil {
			return err
		}
		return p.Notify(n)
	case kindIssue:
		return p.Issue(passport.Signed(d.all()))
	case kindProbe:
		return p.Probe(ctx)
	}
	return errMessage
}

func resultOf(err error) byte {
	switch {
	case err == nil:
		return resultDone
	case errors.Is(err, call.ErrOver):
		return resultOver
	}
	return resultFailed
}
