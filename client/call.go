package client

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/report"
)

// Result is how a call ended.
type Result struct {
	ID     call.ID
	Cause  call.Cause
	Status int
	Stdout call.Digest
	Stderr call.Digest
	// Reason is the daemon's, in words, where there is one.
	Reason string
	// Complete says that the daemon signed this end, and that all the output it
	// signed for has come.
	Complete bool
	// End and EndSignature are the daemon's signed END as it came: the client's
	// part of the proof of what happened.
	End, EndSignature []byte
}

// ErrOutput: the call's output could not be written, and the remote work was
// cancelled.
var ErrOutput = errors.New("writing output")

// cancelGrace is how long a cancelled call waits for its END.
const cancelGrace = 5 * time.Second

// Asked is one call to make.
type Asked struct {
	Verb           string
	Params         []call.Param
	Stdout, Stderr io.Writer
	// OnNotice, where set, is told instead of the session's what the daemon says
	// of this call while it waits. It must not block.
	OnNotice func(call.Notice)
}

// Call runs a verb: see [Session.Do].
func (s *Session) Call(ctx context.Context, verb string, params []call.Param, stdout, stderr io.Writer) (Result, error) {
	return s.Do(ctx, Asked{Verb: verb, Params: params, Stdout: stdout, Stderr: stderr})
}

// Do runs a verb and writes its output as it comes, each stream from this
// goroutine. When ctx ends the remote work is cancelled, and the result still
// awaited for a moment. A request that came too late to be run is sent once
// more, with a new id, and so is one that was lost with its connection, if it was
// asked for just now. The error is that nothing was sent, or that a writer
// failed; how the call ended is the result's.
func (s *Session) Do(ctx context.Context, a Asked) (Result, error) {
	asked := time.Now()
	r, err := s.callOnce(ctx, a)
	never := r.Cause == call.Stale || r.Cause == call.Unseen && time.Since(asked) < justNow
	if err == nil && never && ctx.Err() == nil {
		return s.callOnce(ctx, a)
	}
	return r, err
}

// justNow is how long ago a call may have been asked for to be sent once more when
// it was never seen. The daemon signed that it never will run under its first id;
// who asked for it may have thought better of it since.
const justNow = 10 * time.Second

func (s *Session) callOnce(ctx context.Context, a Asked) (Result, error) {
	p, err := s.send(ctx, a)
	if err != nil {
		return Result{}, fmt.Errorf("calling %s: %w", a.Verb, err)
	}
	defer s.leaveCall(p.id)
	stop := context.AfterFunc(ctx, func() { s.cancelCall(p) })
	defer stop()
	err = s.drain(ctx, p, a.Stdout, a.Stderr)
	if err != nil {
		// Nobody reads it any more: the work is cancelled, and its end awaited.
		s.cancelCall(p)
		gone, now := context.WithCancel(ctx)
		now()
		_ = s.drain(gone, p, io.Discard, io.Discard)
	}
	s.mu.Lock()
	r, unseen := p.result, p.unseen
	s.mu.Unlock()
	r.ID = p.id
	if r.End != nil && !unseen && s.onReceipt != nil {
		s.onReceipt(report.Receipt{
			Daemon: p.daemon, RID: s.rid, Key: s.signer.Public(), TH2: p.th2,
			Request: p.body, Signature: p.signature, End: r.End, EndSig: r.EndSignature, Came: time.Now(),
		})
	}
	return r, err
}

// send sends the CALL. From the moment it is entered it may have gone out.
func (s *Session) send(ctx context.Context, a Asked) (*pending, error) {
	req := call.Request{Verb: a.Verb, Params: a.Params}
	if _, err := io.ReadFull(s.rand, req.ID[:]); err != nil {
		return nil, fmt.Errorf("drawing an id: %w", err)
	}
	if err := req.Check(); err != nil {
		return nil, err
	}
	for {
		l, challenge, err := s.ready(ctx)
		if err != nil {
			return nil, err
		}
		req.Challenge = challenge
		body := req.Append(nil)
		signature := call.SignRequest(s.signer.Reveal(), s.rid, l.conn.TH2(), body)
		p := newPending(req.ID, body, signature)
		p.daemon, p.th2 = l.conn.DaemonKey(), l.conn.TH2()
		p.onNotice, p.link = a.OnNotice, l
		if entered, err := s.enter(p); err != nil {
			return nil, err
		} else if !entered {
			continue // that connection is gone, and nothing was sent
		}
		if err := l.conn.Write(channel.TypeCall, body, signature); err != nil {
			l.abandon(err) // it may have gone out: another connection asks what became of it
		}
		return p, nil
	}
}

// enter enters the call, if its connection still stands.
func (s *Session) enter(p *pending) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	if s.link != p.link {
		return false, nil
	}
	s.entered++
	p.number = s.entered
	s.calls[p.id] = p
	return true, nil
}

func (s *Session) leaveCall(id call.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// cancelCall asks the daemon to end the call, now or as soon as a connection
// stands.
func (s *Session) cancelCall(p *pending) {
	s.mu.Lock()
	p.cancelled = true
	l := s.link
	s.mu.Unlock()
	if l != nil {
		_ = l.conn.Write(channel.TypeCancel, call.AppendCancel(nil, p.id)) // as in goOn
	}
}

// pending is a call without END. The session's lock guards it.
type pending struct {
	// immutable
	id       call.ID
	number   uint64   // in the order of their sending
	request  [32]byte // what the daemon's END is bound to
	onNotice func(call.Notice)
	// What the recipient signed, and for which connection: its receipt's part.
	body, signature []byte
	daemon          ed25519.PublicKey
	th2             [32]byte

	link      *link // that carries it, or last did
	moved     bool  // it came by another
	unseen    bool  // its END is bound to no request
	cancelled bool
	changed   chan struct{} // something came; capacity 1
	buffered  [2][]byte     // came, and not yet written
	came      [2]uint64
	hashes    [2]hash.Hash
	told      uint64 // of came, both streams, in the last WINDOW
	credited  uint64 // came + credit of the last WINDOW
	starved   bool   // no WINDOW was sent by this link yet, and there is no credit
	reason    string
	ended     bool
	result    Result
}

func newPending(id call.ID, body, signature []byte) *pending {
	return &pending{
		id: id, body: body, signature: signature, request: call.RequestHash(body, signature),
		changed: make(chan struct{}, 1),
		hashes:  [2]hash.Hash{sha256.New(), sha256.New()},
	}
}

func (p *pending) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// window is the WINDOW that is due: when something came, and when a good part
// of the credit has become free again.
func (p *pending) window(id call.ID) (call.Window, bool) {
	came := p.came[0] + p.came[1]
	credit := uint64(call.MaxCredit - len(p.buffered[0]) - len(p.buffered[1]))
	if p.ended || !p.starved && came == p.told && came+credit < p.credited+call.MaxCredit/4 {
		return call.Window{}, false
	}
	p.told, p.credited, p.starved = came, came+credit, false
	return call.Window{ID: id, Stdout: p.came[0], Stderr: p.came[1], Credit: credit}, true
}

// moveTo lets another link carry the call: it begins without credit there.
func (p *pending) moveTo(l *link) {
	p.link, p.moved, p.starved = l, true, true
}

// takeOutput buffers what came, within the credit that was given.
func (l *link) takeOutput(body []byte) error {
	s := l.s
	o, err := call.ParseOutput(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.calls[o.ID]
	if p == nil {
		return nil // of a call that was given up here
	}
	i := o.Stream - 1
	switch {
	case p.ended || o.Offset != p.came[i]:
		return fmt.Errorf("%w: output out of order", errProtocol)
	case len(p.buffered[0])+len(p.buffered[1])+len(o.Data) > call.MaxCredit:
		return fmt.Errorf("%w: more output than there was credit for", errProtocol)
	}
	p.buffered[i] = append(p.buffered[i], o.Data...)
	p.came[i] += uint64(len(o.Data))
	p.hashes[i].Write(o.Data)
	p.signal()
	l.signal()
	return nil
}

const signatureSize = ed25519.SignatureSize

// takeEnd verifies the daemon's signature over the result of this very request,
// and holds the output against it. A call that came by another connection may
// have ended there, or never have come: then no request is what END is bound to.
func (l *link) takeEnd(record []byte) error {
	s := l.s
	if len(record) < signatureSize {
		return fmt.Errorf("%w: a result without a signature", errProtocol)
	}
	body, signature := record[:len(record)-signatureSize], record[len(record)-signatureSize:]
	r, err := call.ParseResult(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p := s.calls[r.ID]
	s.mu.Unlock()
	if p != nil && !p.moved { // else its challenge may be another connection's
		l.adopt(r.Challenge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil || p.ended {
		return nil
	}
	request := p.request
	if p.moved && r.Cause == call.Unseen {
		request, p.unseen = [32]byte{}, true
	}
	if !call.VerifyResult(l.conn.DaemonKey(), s.rid, request, body, signature) {
		return fmt.Errorf("%w: the result is not signed by the daemon", errProtocol)
	}
	p.ended = true
	p.result = Result{
		Cause: r.Cause, Status: int(r.Status), Stdout: r.Stdout, Stderr: r.Stderr, Reason: p.reason,
		Complete: p.digest(0) == r.Stdout && p.digest(1) == r.Stderr,
		End:      append([]byte(nil), body...), EndSignature: append([]byte(nil), signature...),
	}
	p.signal()
	if came := p.came[0] + p.came[1]; came != p.told || p.starved {
		l.heardOf = append(l.heardOf, call.Window{ID: p.id, Stdout: p.came[0], Stderr: p.came[1]})
		l.signal()
	}
	return nil
}

func (p *pending) digest(i int) call.Digest {
	return call.Digest{Bytes: p.came[i], SHA256: [32]byte(p.hashes[i].Sum(nil))}
}

// cut ends a call that has no END: its outcome is unknown, unless the daemon
// said why the whole session is over. The session's lock is held.
func (p *pending) cut(err error) {
	if p.ended {
		return
	}
	p.ended = true
	p.result = Result{Cause: call.Cut, Stdout: p.digest(0), Stderr: p.digest(1), Reason: err.Error()}
	if over, ok := errors.AsType[*OverError](err); ok {
		p.result.Cause, p.result.Reason = over.Cause, over.Reason
	}
	p.signal()
}

// drain writes the call's output until it has ended and all of it is written. A
// slow writer holds this call back, and no other.
func (s *Session) drain(ctx context.Context, p *pending, stdout, stderr io.Writer) error {
	writers := [2]io.Writer{stdout, stderr}
	giveUp := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(cancelGrace, func() { close(giveUp) }) })
	defer stop()
	for {
		s.mu.Lock()
		data, ended := p.buffered, p.ended
		p.buffered = [2][]byte{}
		p.link.signal()
		s.mu.Unlock()
		for i, w := range writers {
			if len(data[i]) == 0 {
				continue
			}
			if _, err := w.Write(data[i]); err != nil {
				return fmt.Errorf("%w: %w", ErrOutput, err)
			}
		}
		if ended {
			return nil // nothing is buffered after the end
		}
		select {
		case <-p.changed:
		case <-giveUp:
			s.mu.Lock()
			p.cut(errSilent)
			delete(s.calls, p.id)
			s.mu.Unlock()
		}
	}
}
