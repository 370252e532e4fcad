package seam

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

var _ Authority = (*remoteCore)(nil)

// remoteCore is the core at the other end of the pipe.
type remoteCore struct {
	pipe  *pipe
	slots chan struct{} // one for each request that is not answered

	mu    sync.Mutex
	peers map[ConnID]Peer
	heard map[heardOf]call.Window // acknowledgements that the core has not been told
}

// heardOf is a call of a connection.
type heardOf struct {
	conn ConnID
	call call.ID
}

// tellHeard is how long acknowledgements are gathered: the newest of a call says
// what those before it did, and the core only forgets by them.
const tellHeard = 5 * time.Millisecond

var errRefused = errors.New("the core refuses")

// exchange sends a request and waits for its answer.
func (c *remoteCore) exchange(k kind, e encoder) (*decoder, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.pipe.done:
		return nil, errEnded
	}
	defer func() { <-c.slots }()
	_, r, err := c.pipe.ask(k, e, true)
	if err != nil {
		return nil, err
	}
	select {
	case body := <-r.answer:
		return &decoder{rest: body}, nil
	case <-c.pipe.done:
		return nil, errEnded
	}
}

// granted is exchange for an answer that begins with whether there is one.
func (c *remoteCore) granted(k kind, e encoder) (*decoder, error) {
	d, err := c.exchange(k, e)
	if err != nil {
		return nil, err
	}
	switch d.byte() {
	case saidYes:
		return d, nil
	case saidProtocol:
		return nil, ErrProtocol
	case saidEnded:
		closing, err := call.ParseClose(d.all())
		if err != nil {
			return nil, err
		}
		return nil, &EndedError{Closing: closing}
	}
	return nil, errRefused
}

func (c *remoteCore) ProveHello(exporter [32]byte) (wire.TokenID, []byte, error) {
	d, err := c.granted(kindProveHello, frame(kindProveHello, 0, 32).fixed(exporter[:]))
	if err != nil {
		return wire.TokenID{}, nil, err
	}
	token, proof := wire.TokenID(d.id()), d.fixed(signature)
	return token, proof, d.end()
}

func (c *remoteCore) ProveRegister(exporter [32]byte, rid wire.RendezvousID) (wire.Register, error) {
	d, err := c.granted(kindProveRegister, frame(kindProveRegister, 0, 48).fixed(exporter[:]).fixed(rid[:]))
	if err != nil {
		return wire.Register{}, err
	}
	r := parseRegister(d, rid)
	return r, d.end()
}

func (c *remoteCore) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	e := frame(kindAnswer, 0, 32+len(msg1)+len(encR)+len(enc)).fixed(rid[:]).long(msg1).long(encR).long(enc)
	d, err := c.granted(kindAnswer, e)
	if err != nil {
		return channel.Answer{}, err
	}
	a := channel.Answer{ConnID: d.id(), P2: d.long(maxHandshake), Signature: d.long(maxHandshake)}
	return a, d.end()
}

func (c *remoteCore) Accept(_ context.Context, id ConnID, ct2, finished []byte) (channel.Acceptance, error) {
	d, err := c.granted(kindAccept, frame(kindAccept, 0, 32+len(ct2)+len(finished)).fixed(id[:]).long(ct2).long(finished))
	if err != nil {
		return channel.Acceptance{}, err
	}
	a := channel.Acceptance{Challenge: [8]byte(d.fixed(8)), Remaining: time.Duration(d.u64())}
	return a, d.end()
}

// Attach makes the connection known here first: the core uses it before it
// answers.
func (c *remoteCore) Attach(id ConnID, p Peer, facts Attachment) error {
	c.mu.Lock()
	c.peers[id] = p
	c.mu.Unlock()
	e := frame(kindAttach, 0, 24+maxWords+maxFrom).fixed(id[:]).long(facts.SAS).text(facts.From, maxFrom)
	_, err := c.granted(kindAttach, e)
	if err != nil {
		c.forget(id)
	}
	return err
}

func (c *remoteCore) TakeCall(id ConnID, body, sig []byte) error {
	_, err := c.granted(kindCall, frame(kindCall, 0, 16+len(sig)+len(body)).fixed(id[:]).fixed(sig).fixed(body))
	return err
}

func (c *remoteCore) Cancel(id ConnID, which call.ID) {
	_ = c.pipe.send(frame(kindCancel, 0, 32).fixed(id[:]).fixed(which[:]), true)
}

func (c *remoteCore) Challenge(id ConnID) (call.Challenge, error) {
	d, err := c.granted(kindChallenge, frame(kindChallenge, 0, 16).fixed(id[:]))
	if err != nil {
		return call.Challenge{}, err
	}
	challenge := call.Challenge(d.fixed(8))
	return challenge, d.end()
}

func (c *remoteCore) Acknowledge(id ConnID, w call.Window) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heard) == 0 {
		time.AfterFunc(tellHeard, c.tell)
	}
	c.heard[heardOf{id, w.ID}] = w
}

// tell has the core told of what was acknowledged.
func (c *remoteCore) tell() {
	c.mu.Lock()
	heard := c.heard
	c.heard = make(map[heardOf]call.Window)
	c.mu.Unlock()
	for of, w := range heard {
		_ = c.pipe.send(w.Append(frame(kindAcknowledge, 0, 64).fixed(of.conn[:])), true)
	}
}

func (c *remoteCore) Detach(id ConnID, left bool) {
	// A core that is gone has nothing to detach.
	_, _ = c.exchange(kindDetach, frame(kindDetach, 0, 17).fixed(id[:]).flag(left))
	c.forget(id)
}

func (c *remoteCore) peer(id ConnID) Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[id]
}

func (c *remoteCore) forget(id ConnID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.peers, id)
}

// logHandler has the core log what the net half has to say.
type logHandler struct {
	pipe  *pipe
	level slog.Level
	attrs []slog.Attr
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return len(attrs) < maxLogged
	})
	attrs = attrs[:min(len(attrs), maxLogged)]
	e := frame(kindLog, 0, 256).byte(byte(int8(r.Level))).text(r.Message, maxLogText).byte(byte(len(attrs)))
	for _, a := range attrs {
		e = e.text(a.Key, maxLogText).text(a.Value.Resolve().String(), maxLogText)
	}
	return h.pipe.send(e, false)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{pipe: h.pipe, level: h.level, attrs: append(append([]slog.Attr(nil), h.attrs...), attrs...)}
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
