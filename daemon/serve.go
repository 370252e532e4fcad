package daemon

import (
	"context"
	"errors"
	"fmt"

	"openscope/wire/call"
)

// errProtocol is why a connection ends that breaks the protocol.
var errProtocol = errors.New("the peer broke the protocol")

// maxOverRate is how many calls over the rate within [overRatePeriod] end a
// connection: signing refusals must not become the attack.
const maxOverRate = 200

// TakeCall takes one CALL record of a connection. What can be refused without
// running anything is refused here, cheapest first; the rest runs by itself
// and answers with END.
func (c *core) TakeCall(id connID, body, signature []byte) error {
	conn, ok := c.connectionOf(id)
	if !ok {
		return fmt.Errorf("taking a call: no such connection")
	}
	req, err := call.ParseRequest(body)
	if err != nil {
		return fmt.Errorf("taking a call: %w", err)
	}
	s := conn.share
	if err := s.Meter.Arrive(); err != nil {
		return c.refuseOverRate(conn, req, body, signature, err)
	}
	if !call.VerifyRequest(conn.key, s.RID, conn.th2, body, signature) {
		return fmt.Errorf("taking a call: %w: the request is not signed by the recipient's key", errProtocol)
	}
	act := &action{
		issuer: s.issuer, agent: s.Issuer.Agent, session: s.Session, conn: conn, meter: s.Meter, core: c,
		request: req, body: body, signature: signature,
	}
	if !s.Ledger.Begin(req.ID) {
		return conn.end(act, c.deny(act, errors.New("the call id was used before")))
	}
	if !conn.challenges.Fresh(req.Challenge) {
		stale := c.deny(act, &ended{cause: call.Stale, reason: "the request came too late to be run"})
		s.Ledger.End(req.ID, stale.cause)
		return conn.end(act, stale)
	}
	ctx, forget, err := conn.begin(c, req.ID)
	if err != nil {
		return err
	}
	c.calls.Go(func() {
		defer forget()
		done := c.serveCall(ctx, act, newOutput(c.feed.tee(s.ID, req.ID, c.clock, conn.sink(req.ID)), s.Meter))
		s.Ledger.End(req.ID, done.cause)
		// A connection that is gone needs no answer; its end is noticed by
		// whoever reads from it.
		_ = conn.end(act, done)
	})
	return nil
}

// begin gives a call its context, which ends with the connection's.
func (conn *connection) begin(c *core, id call.ID) (ctx context.Context, forget func(), err error) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.ctx.Err() != nil {
		return nil, nil, fmt.Errorf("taking a call: %w", context.Cause(conn.ctx))
	}
	ctx, cancel := context.WithCancelCause(conn.ctx)
	conn.running[id] = cancel
	conn.lastCall = c.clock.Boot()
	return ctx, func() {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		delete(conn.running, id)
		conn.lastCall = c.clock.Boot()
		cancel(nil)
	}, nil
}

// end answers a call: the reason in words where there is one, then the signed
// result (wire/README.md §6).
func (conn *connection) end(act *action, done outcome) error {
	if done.end.body == nil {
		return errors.New("answering a call: its end could not be signed")
	}
	if done.reason != "" {
		if err := conn.peer.Notify(call.Notice{Kind: call.NoticeReason, ID: act.request.ID, Text: printable(done.reason)}); err != nil {
			return err
		}
	}
	return conn.peer.End(act.request.ID, done.end.body, done.end.signature)
}

// signedEnd is a call's END, as it is sent and as the log keeps it.
type signedEnd struct{ body, signature []byte }

// signed is the outcome with the END that tells it (wire/README.md §6.4). It is
// made before the outcome is logged: one entry, and one sync, have both what
// happened and what the recipient can show of it. A local call has none.
func (c *core) signed(act *action, done outcome) outcome {
	done.end = signedEnd{}
	if act.conn == nil {
		return done
	}
	challenge, err := act.conn.challenges.Issue()
	if err != nil {
		return done // end refuses to send it
	}
	body := call.Result{
		ID: act.request.ID, Cause: done.cause, Status: int32(done.status),
		Stdout: done.stdout, Stderr: done.stderr,
		Challenge: challenge, ChainHead: c.log.Head(),
	}.Append(nil)
	request := call.RequestHash(act.body, act.signature)
	done.end = signedEnd{body, call.SignResult(c.identity.Reveal(), act.conn.share.RID, request, body)}
	return done
}

// refuseOverRate answers a call that came too fast. It is counted, and logged
// once a second, so that a flood cannot fill the log.
func (c *core) refuseOverRate(conn *connection, req call.Request, body, signature []byte, why error) error {
	conn.share.NoteRefused()
	if n, due := conn.overRate.note(c.clock.Boot(), overRatePeriod); due {
		c.logOverRate(conn, n)
	} else if conn.overRate.counted() > maxOverRate {
		return fmt.Errorf("taking a call: %w: %d calls over the rate within a second", errProtocol, maxOverRate)
	}
	act := &action{conn: conn, request: req, body: body, signature: signature}
	return conn.end(act, c.signed(act, outcome{cause: call.Limit, reason: why.Error()}.withEmptyStreams()))
}

// sink is where a call's output goes.
func (conn *connection) sink(id call.ID) sink {
	return func(ctx context.Context, s call.Stream, data []byte) (int, error) {
		return conn.peer.Output(ctx, id, s, data)
	}
}
