package daemon

import (
	"errors"
	"fmt"

	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

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
	live, err := c.begin(conn, act)
	if errors.Is(err, errSpent) {
		return conn.end(act, c.deny(act, err))
	}
	if err != nil {
		return err
	}
	if !conn.challenges.Fresh(req.Challenge) {
		c.finish(live, c.deny(act, &ended{cause: call.Stale, reason: "the request came too late to be run"}))
		return nil
	}
	c.calls.Go(func() {
		out := newOutput(c.feed.tee(s.ID, req.ID, c.clock, live.out.write), s.Meter)
		c.finish(live, c.serveCall(live.ctx, act, out))
	})
	return nil
}

// end answers a call that is none of the live ones.
func (conn *connection) end(act *action, done outcome) error {
	return sayEnd(conn.peer, act.request.ID, session.Ending{
		Cause: done.cause, End: done.end.body, Signature: done.end.signature, Reason: printable(done.reason),
	})
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
	challenge, err := c.carrierOf(act).challenges.Issue()
	if err != nil {
		return done // sayEnd refuses to send it
	}
	body := call.Result{
		ID: act.request.ID, Cause: done.cause, Status: int32(done.status),
		Stdout: done.stdout, Stderr: done.stderr,
		Challenge: challenge, ChainHead: c.log.Head(),
	}.Append(nil)
	var request [32]byte // of a call that was never seen there is none
	if act.body != nil {
		request = call.RequestHash(act.body, act.signature)
	}
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
