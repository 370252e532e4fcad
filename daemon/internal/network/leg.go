package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"openscope/daemon/internal/seam"
	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// The rhythm of a connection (wire/README.md §7).
const (
	pingRunning = 3 * time.Second  // while a call runs or waits
	pingIdle    = 25 * time.Second // otherwise; it keeps NAT bindings open
	deadRunning = 15 * time.Second // silence that ends a connection
	deadIdle    = 60 * time.Second
	issueWithin = 5 * time.Second // a client has to take a passport
)

// silenceInterval is how often somebody looks for a peer's silence.
const silenceInterval = time.Second

// maxOutput is how much output one record carries.
const maxOutput = channel.MaxBody - call.OutputHeader

// leg is the net half's side of one connection: the records of one client.
type leg struct {
	net  *Half
	leg  wire.Leg
	conn *channel.Conn
	id   seam.ConnID
	flow *call.Flow

	running  atomic.Int32    // calls taken and not yet ended
	heard    atomic.Int64    // unix nanoseconds of the last record
	closing  chan call.Close // the first Close; buffered
	finished chan struct{}   // closed when the read loop has returned

	mu     sync.Mutex
	probes map[[8]byte]chan struct{} // PINGs somebody waits for
}

// serveLeg shakes hands on a new leg and serves its records until it ends.
func (n *Half) serveLeg(ctx context.Context, t *tunnel.Daemon, preface wire.Preface, raw wire.Leg) {
	defer raw.Reset()
	cfg, ok := n.configFor(preface.RID)
	if !ok {
		return
	}
	shown, met := n.meet(raw)
	cfg.Shown = shown
	conn, err := channel.Daemon(ctx, raw, cfg)
	met()
	if err != nil {
		n.logger.Debug("handshake", "error", err)
		return
	}
	if err := t.Keep(preface.RID, preface.Leg); err != nil {
		n.logger.Debug("keeping a leg", "error", err)
	}
	l := &leg{
		net: n, leg: raw, conn: conn, id: conn.ID(), flow: call.NewFlow(time.Now),
		closing: make(chan call.Close, 1), finished: make(chan struct{}),
		probes: make(map[[8]byte]chan struct{}),
	}
	if err := l.serve(preface.From); err != nil {
		n.logger.Debug("connection ended", "error", err)
	}
}

// serve attaches the connection to the core and reads until it ends.
func (l *leg) serve(from string) error {
	err := l.net.core.Attach(l.id, l, seam.Attachment{SAS: l.conn.SessionWords(), From: from})
	if over, ok := errors.AsType[*seam.EndedError](err); ok {
		l.awaitClient(over.Closing)
		return err
	}
	if err != nil {
		l.sayFault(err)
		return err
	}
	defer func() { l.net.core.Detach(l.id, errors.Is(err, errClosed)) }()
	l.touch()
	var beside sync.WaitGroup
	beside.Go(l.ping)
	beside.Go(l.watchSilence)
	beside.Go(l.awaitClose)
	err = l.read()
	l.sayFault(err)
	close(l.finished)
	l.flow.Fail(err)
	l.leg.Reset() // ends any write that is stuck
	beside.Wait()
	return err
}

// awaitClient says CLOSE to a client whose session was over before it came,
// and drains what it still sends.
func (l *leg) awaitClient(c call.Close) {
	var beside sync.WaitGroup
	beside.Go(func() { l.sayClose(c) })
	// Whatever it sends meanwhile has no connection to run on, and ends this.
	_ = l.read()
	close(l.finished)
	beside.Wait()
}

// read takes records until the first that must end the connection.
func (l *leg) read() error {
	for {
		t, body, err := l.conn.Read()
		if err != nil {
			return err
		}
		l.touch()
		if err := l.take(t, body); err != nil {
			return err
		}
	}
}

// errClosed is the peer's CLOSE, errEnding our own.
var (
	errClosed = errors.New("closed by the recipient")
	errEnding = errors.New("the connection is being closed")
)

func (l *leg) take(t channel.Type, body []byte) error {
	switch t {
	case channel.TypeCall:
		return l.takeCall(body)
	case channel.TypeCancel:
		id, err := call.ParseCancel(body)
		if err != nil {
			return err
		}
		l.net.core.Cancel(l.id, id)
		return nil
	case channel.TypeWindow:
		w, err := call.ParseWindow(body)
		if err != nil {
			return err
		}
		if err := l.flow.Acknowledge(w); err != nil {
			return err
		}
		l.net.core.Acknowledge(l.id, w)
		return nil
	case channel.TypePing:
		p, err := call.ParsePing(body)
		if err != nil {
			return err
		}
		return l.pong(p.Nonce)
	case channel.TypePong:
		p, err := call.ParsePong(body)
		if err != nil {
			return err
		}
		l.answered(p.Nonce)
		return nil
	case channel.TypeClose:
		return errClosed
	}
	return fmt.Errorf("%w: record %d from a client", seam.ErrProtocol, t)
}

// signatureSize is that of the signature at the end of CALL and END.
const signatureSize = 64

func (l *leg) takeCall(record []byte) error {
	if len(record) < signatureSize {
		return fmt.Errorf("%w: a call without a signature", seam.ErrProtocol)
	}
	owned := append([]byte(nil), record...) // the record's bytes are the reader's
	body, signature := owned[:len(owned)-signatureSize], owned[len(owned)-signatureSize:]
	req, err := call.ParseRequest(body)
	if err != nil {
		return err
	}
	l.flow.Open(req.ID)
	l.running.Add(1)
	return l.net.core.TakeCall(l.id, body, signature)
}

func (l *leg) pong(nonce [8]byte) error {
	challenge, err := l.net.core.Challenge(l.id)
	if err != nil {
		return err
	}
	return l.conn.Write(channel.TypePong, call.Pong{Nonce: nonce, Challenge: challenge}.Append(nil))
}

// Output sends data under flow control (wire/README.md §6).
func (l *leg) Output(ctx context.Context, id call.ID, s call.Stream, data []byte) (int, error) {
	sent := 0
	var record []byte
	for sent < len(data) {
		n, offset, err := l.flow.Take(ctx, id, s, min(len(data)-sent, maxOutput))
		if err != nil {
			return sent, err
		}
		record = call.Output{ID: id, Stream: s, Offset: offset, Data: data[sent : sent+n]}.Append(record[:0])
		if err := l.conn.Write(channel.TypeOut, record); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// Continue admits a call that another connection carried before.
func (l *leg) Continue(id call.ID, stdout, stderr uint64) {
	l.flow.Resume(id, stdout, stderr)
	l.running.Add(1)
}

// End sends a call's result.
func (l *leg) End(id call.ID, body, signature []byte) error {
	defer l.running.Add(-1)
	l.flow.Close(id)
	return l.conn.Write(channel.TypeEnd, body, signature)
}

func (l *leg) Notify(n call.Notice) error {
	return l.conn.Write(channel.TypeNotice, n.Append(nil))
}

// Issue sends a passport. A client that does not take it in time is let go:
// the issuer who extends a session does not wait for it.
func (l *leg) Issue(s passport.Signed) error {
	late := time.AfterFunc(issueWithin, l.leg.Reset)
	defer late.Stop()
	return l.conn.Write(channel.TypePassport, s)
}

// sayFault tells a client that broke the protocol so, before it is let go; what
// it got wrong is for our own log (wire/README.md §11).
func (l *leg) sayFault(err error) {
	if !errors.Is(err, seam.ErrProtocol) && !errors.Is(err, call.ErrMalformed) && !errors.Is(err, call.ErrFlow) {
		return
	}
	late := time.AfterFunc(seam.CloseGrace, l.leg.Reset)
	defer late.Stop()
	fault := call.Fault{Code: call.FaultProtocol, Text: seam.ErrProtocol.Error()}
	if l.conn.Write(channel.TypeError, fault.Append(nil)) == nil {
		_ = l.conn.CloseWrite()
	}
}

// Probe sends a PING of its own and waits for its PONG.
func (l *leg) Probe(ctx context.Context) error {
	nonce, wait, err := l.sendPing()
	if err != nil {
		return err
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		l.forget(nonce)
		return context.Cause(ctx)
	case <-l.finished:
		return errClosed
	}
}

// sendPing sends a PING; wait is closed by its PONG.
func (l *leg) sendPing() (nonce [8]byte, wait chan struct{}, err error) {
	if _, err := io.ReadFull(l.net.rand, nonce[:]); err != nil {
		return nonce, nil, fmt.Errorf("drawing a nonce: %w", err)
	}
	challenge, err := l.net.core.Challenge(l.id)
	if err != nil {
		return nonce, nil, err
	}
	wait = make(chan struct{})
	l.mu.Lock()
	l.probes[nonce] = wait
	l.mu.Unlock()
	return nonce, wait, l.conn.Write(channel.TypePing, call.Ping{Nonce: nonce, Challenge: challenge}.Append(nil))
}

func (l *leg) answered(nonce [8]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.probes[nonce]; wait != nil {
		close(wait)
		delete(l.probes, nonce)
	}
}

func (l *leg) forget(nonce [8]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.probes, nonce)
}

// watchSilence ends the connection when the client has been silent for too
// long. It writes nothing, and so is not held up by a peer that does not read.
func (l *leg) watchSilence() {
	tick := time.NewTicker(silenceInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.finished:
			return
		case now := <-tick.C:
			if l.silence(now) > deadAfter(l.running.Load() > 0) {
				l.leg.Reset()
				return
			}
		}
	}
}

// ping keeps the connection's rhythm.
func (l *leg) ping() {
	tick := time.NewTicker(pingRunning)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-l.finished:
			return
		case now := <-tick.C:
			if busy := l.running.Load() > 0; !busy && now.Sub(last) < pingIdle {
				continue
			}
			last = now
			nonce, _, err := l.sendPing()
			if err != nil {
				l.leg.Reset()
				return
			}
			l.forget(nonce) // any record proves life; nobody waits for this PONG
		}
	}
}

func deadAfter(busy bool) time.Duration {
	if busy {
		return deadRunning
	}
	return deadIdle
}

func (l *leg) touch()                              { l.heard.Store(time.Now().UnixNano()) }
func (l *leg) silence(now time.Time) time.Duration { return now.Sub(time.Unix(0, l.heard.Load())) }

// Close ends the connection without waiting for it; only the first counts. No
// more output is sent: what is not acknowledged may be another connection's now.
func (l *leg) Close(c call.Close) {
	l.flow.Fail(errEnding)
	select {
	case l.closing <- c:
	default:
	}
}

// awaitClose ends the connection when it is told to, or goes with it.
func (l *leg) awaitClose() {
	select {
	case c := <-l.closing:
		l.sayClose(c)
	case <-l.finished:
	}
}

// sayClose lets the results of dying calls out, then CLOSE, and resets the leg
// [seam.CloseGrace] later, whatever was sent: a peer that does not read cannot hold
// the end up.
func (l *leg) sayClose(c call.Close) {
	defer l.leg.Reset()
	stuck := time.AfterFunc(seam.CloseGrace, l.leg.Reset)
	defer stuck.Stop()
	l.awaitResults(seam.CloseGrace / 2)
	if err := l.conn.Write(channel.TypeClose, c.Append(nil)); err != nil {
		return
	}
	if err := l.conn.CloseWrite(); err != nil {
		return
	}
	select { // the client closes its side once it has read CLOSE
	case <-l.finished:
	case <-time.After(seam.CloseGrace):
	}
}

// resultsInterval is how often a closing connection looks whether its calls
// have ended.
const resultsInterval = 5 * time.Millisecond

// awaitResults gives dying calls a moment to send their results.
func (l *leg) awaitResults(patience time.Duration) {
	tick := time.NewTicker(resultsInterval)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for l.running.Load() > 0 && time.Now().Before(deadline) {
		<-tick.C
	}
}
