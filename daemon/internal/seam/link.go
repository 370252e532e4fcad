package seam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/time/rate"

	"openscope/wire"
	"openscope/wire/call"
)

// How much of what a net half wants logged is: a burst, then so many a second.
const (
	logRate  = 20
	logBurst = 200
)

// link is the core's end of the pipe to one net half. Nothing that comes by it is
// believed: what breaks a rule ends it, and the core verifies the rest.
type link struct {
	*pipe
	core   Authority
	relays []wire.Relay
	logger *slog.Logger
	said   *rate.Limiter // what is logged in its name
	ready  bool          // owned by the reader
	// told is what it says of itself and of the relays.
	told func(*Confinement, []RelayState)

	asked sync.WaitGroup // its requests that are being answered

	mu    sync.Mutex // guards what is below
	open  map[uint32]bool
	peers map[ConnID]*remotePeer
}

func newLink(conn net.Conn, core Authority, relays []wire.Relay, logger *slog.Logger, told func(*Confinement, []RelayState)) *link {
	l := &link{
		core: core, relays: relays, logger: logger, told: told, said: rate.NewLimiter(logRate, logBurst),
		open: make(map[uint32]bool), peers: make(map[ConnID]*remotePeer),
	}
	l.pipe = newPipe(conn, func(k kind) (int, bool) {
		most, ok := limits[k]
		return most, ok && !k.fromCore()
	})
	l.handle = l.take
	return l
}

// run serves the net half until the pipe ends. When it returns, none of its
// connections is attached any more.
func (l *link) run() error {
	err := l.pipe.run()
	l.asked.Wait()
	l.mu.Lock()
	peers := l.peers
	l.peers = nil
	l.mu.Unlock()
	for id, p := range peers {
		p.lost()
		l.core.Detach(id, false)
	}
	return err
}

// take is called by the reader, and waits for nothing.
func (l *link) take(k kind, id uint32, body []byte) error {
	if l.ready == (k == kindReady) {
		return fmt.Errorf("%w: kind %d out of order", errMessage, k)
	}
	switch k {
	case kindReady:
		c, err := parseConfinement(body)
		l.ready = true
		l.told(&c, nil)
		return err
	case kindRelays:
		states, err := parseStates(body, l.relays)
		if err == nil {
			l.told(nil, states)
		}
		return err
	case kindLog:
		return l.log(body)
	case kindCancel:
		return l.cancel(body)
	case kindAcknowledge:
		return l.acknowledge(body)
	}
	return l.begin(k, id, body)
}

func (l *link) cancel(body []byte) error {
	d := decoder{rest: body}
	conn, id := d.id(), call.ID(d.id())
	if err := d.end(); err != nil {
		return err
	}
	if l.peer(conn) != nil {
		l.core.Cancel(conn, id)
	}
	return nil
}

func (l *link) acknowledge(body []byte) error {
	d := decoder{rest: body}
	conn := d.id()
	w, err := call.ParseWindow(d.all())
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if l.peer(conn) != nil {
		l.core.Acknowledge(conn, w)
	}
	return nil
}

func (l *link) peer(id ConnID) *remotePeer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[id]
}

// begin answers a request beside the reader. There are only so many at a time.
func (l *link) begin(k kind, id uint32, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[id] || len(l.open) >= maxAsked {
		return fmt.Errorf("%w: %d requests are open", errMessage, len(l.open))
	}
	l.open[id] = true
	l.asked.Go(func() {
		fill, err := l.serve(k, body)
		l.mu.Lock()
		delete(l.open, id)
		l.mu.Unlock()
		if err != nil {
			l.fail(fmt.Errorf("kind %d: %w", k, err))
			return
		}
		l.reply(k, id, fill)
	})
	return nil
}

// serve answers one request. An error is one of the message itself.
func (l *link) serve(k kind, body []byte) (func(encoder) encoder, error) {
	d := &decoder{rest: body}
	switch k {
	case kindProveHello:
		return l.proveHello(d)
	case kindProveRegister:
		return l.proveRegister(d)
	case kindAnswer:
		return l.answer(d)
	case kindAccept:
		return l.accept(d)
	case kindAttach:
		return l.attach(d)
	case kindCall:
		return l.takeCall(d)
	case kindChallenge:
		return l.challenge(d)
	case kindDetach:
		return l.detach(d)
	}
	return nil, errMessage // the limits name no other
}

// refused is the answer without a reason: those of the core are its own.
func (l *link) refused(what string, err error) (func(encoder) encoder, error) {
	l.logger.Debug("the core refuses", "what", what, "error", err)
	return func(e encoder) encoder { return e.byte(saidNo) }, nil
}

// granted is the answer of the core, or that it refuses.
func (l *link) granted(what string, err error, answer func(encoder) encoder) (func(encoder) encoder, error) {
	if err != nil {
		return l.refused(what, err)
	}
	return func(e encoder) encoder { return answer(e.byte(saidYes)) }, nil
}

func (l *link) proveHello(d *decoder) (func(encoder) encoder, error) {
	exporter := [32]byte(d.fixed(32))
	if err := d.end(); err != nil {
		return nil, err
	}
	token, proof, err := l.core.ProveHello(exporter)
	return l.granted("hello", err, func(e encoder) encoder { return e.fixed(token[:]).fixed(proof) })
}

func (l *link) proveRegister(d *decoder) (func(encoder) encoder, error) {
	exporter, rid := [32]byte(d.fixed(32)), wire.RendezvousID(d.id())
	if err := d.end(); err != nil {
		return nil, err
	}
	r, err := l.core.ProveRegister(exporter, rid)
	return l.granted("register", err, func(e encoder) encoder { return appendRegister(e, r) })
}

func (l *link) answer(d *decoder) (func(encoder) encoder, error) {
	rid, msg1, encR, enc := wire.RendezvousID(d.id()), d.long(maxHandshake), d.long(maxHandshake), d.long(maxHandshake)
	if err := d.end(); err != nil {
		return nil, err
	}
	if len(encR) == 0 {
		encR = nil
	}
	a, err := l.core.Answer(context.Background(), rid, msg1, encR, enc)
	return l.granted("msg1", err, func(e encoder) encoder { return e.fixed(a.ConnID[:]).long(a.P2).long(a.Signature) })
}

func (l *link) accept(d *decoder) (func(encoder) encoder, error) {
	id, ct2, finished := d.id(), d.long(maxHandshake), d.long(maxHandshake)
	if err := d.end(); err != nil {
		return nil, err
	}
	a, err := l.core.Accept(context.Background(), id, ct2, finished)
	return l.granted("FINISHED", err, func(e encoder) encoder { return e.fixed(a.Challenge[:]).u64(uint64(a.Remaining)) })
}

// attach enters the connection before the core may use it, and only once.
func (l *link) attach(d *decoder) (func(encoder) encoder, error) {
	id, words, from := d.id(), d.long(maxWords), d.text(maxFrom)
	if err := d.end(); err != nil {
		return nil, err
	}
	p := newRemotePeer(l, id)
	l.mu.Lock()
	if l.peers[id] != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("%w: a connection is attached twice", errMessage)
	}
	l.peers[id] = p
	l.mu.Unlock()
	err := l.core.Attach(id, p, Attachment{SAS: append([]byte(nil), words...), From: from})
	if err != nil {
		l.mu.Lock()
		delete(l.peers, id)
		l.mu.Unlock()
		p.lost()
	}
	return l.refusal("attach", err)
}

// refusal is the answer to what is either done or ends the connection.
func (l *link) refusal(what string, err error) (func(encoder) encoder, error) {
	if err == nil {
		return func(e encoder) encoder { return e.byte(saidYes) }, nil
	}
	if over, ok := errors.AsType[*EndedError](err); ok {
		return func(e encoder) encoder { return over.Closing.Append(e.byte(saidEnded)) }, nil
	}
	if errors.Is(err, ErrProtocol) || errors.Is(err, call.ErrMalformed) {
		l.logger.Debug("the core refuses", "what", what, "error", err)
		return func(e encoder) encoder { return e.byte(saidProtocol) }, nil
	}
	return l.refused(what, err)
}

func (l *link) takeCall(d *decoder) (func(encoder) encoder, error) {
	id, sig, body := d.id(), d.fixed(signature), d.all()
	if err := d.end(); err != nil {
		return nil, err
	}
	return l.refusal("call", l.core.TakeCall(id, body, sig))
}

func (l *link) challenge(d *decoder) (func(encoder) encoder, error) {
	id := d.id()
	if err := d.end(); err != nil {
		return nil, err
	}
	c, err := l.core.Challenge(id)
	return l.granted("challenge", err, func(e encoder) encoder { return e.fixed(c[:]) })
}

func (l *link) detach(d *decoder) (func(encoder) encoder, error) {
	id, left := d.id(), d.flag()
	if err := d.end(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	p := l.peers[id]
	delete(l.peers, id)
	l.mu.Unlock()
	if p != nil {
		p.lost()
		l.core.Detach(id, left)
	}
	return func(e encoder) encoder { return e }, nil
}

// log enters what the net half has to say: few lines, of printable text.
func (l *link) log(body []byte) error {
	d := decoder{rest: body}
	level, message := slog.Level(int8(d.byte())), d.text(maxLogText)
	n := int(d.byte())
	if n > maxLogged {
		return errMessage
	}
	attrs := []slog.Attr{slog.String("says", message)}
	for range n {
		attrs = append(attrs, slog.String(d.text(maxLogText), d.text(maxLogText)))
	}
	if err := d.end(); err != nil {
		return err
	}
	if l.said.Allow() {
		l.logger.LogAttrs(context.Background(), min(level, slog.LevelError), "the net half", attrs...)
	}
	return nil
}

// register asks for a session to be known; the second error is the pipe's.
func (l *link) register(ctx context.Context, rid wire.RendezvousID) (relays []wire.Relay, problem error, err error) {
	body, err := l.exchange(ctx, nil, kindRegister, frame(kindRegister, 0, 16).fixed(rid[:]))
	if err != nil {
		return nil, nil, err
	}
	relays, words, err := parseRelays(body, l.relays)
	if err != nil {
		l.fail(err)
		return nil, nil, err
	}
	if len(relays) == 0 {
		return nil, errors.New(words), nil
	}
	return relays, nil, nil
}

// try asks for one way to one relay to be tried.
func (l *link) try(ctx context.Context, relay, rung int) (Tried, error) {
	body, err := l.exchange(ctx, nil, kindTry, frame(kindTry, 0, 2).byte(byte(relay)).byte(byte(rung)))
	if err != nil {
		return Tried{}, err
	}
	t, err := parseTried(body)
	if err != nil {
		l.fail(err)
	}
	return t, err
}

// exchange sends a request and waits for its answer, or until gone is closed. A
// context that ends has it given up. Of output the answer is awaited even then: it
// says how far that had come.
func (l *link) exchange(ctx context.Context, gone <-chan struct{}, k kind, e encoder) ([]byte, error) {
	id, r, err := l.ask(k, e, true)
	if err != nil {
		return nil, err
	}
	given := ctx.Done()
	for {
		select {
		case body := <-r.answer:
			return body, nil
		case <-l.done:
			return nil, errEnded
		case <-gone:
			return nil, errEnded
		case <-given:
			given = nil
			_ = l.send(frame(kindAbort, id, 0), false)
			if k != kindOutput {
				return nil, context.Cause(ctx)
			}
		}
	}
}
