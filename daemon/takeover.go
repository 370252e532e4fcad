package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// takeover is what a new connection takes from those before it.
type takeover struct {
	displaced []*connection
	calls     []takenCall
}

// takenCall is one entry of FINISHED's list, as it was found.
type takenCall struct {
	id     call.ID
	next   [2]uint64
	live   *liveCall      // nil: it is over, or was never seen
	ending session.Ending // without cause: it was never seen
}

// maxSucceeded is how many of its predecessors a connection is known by.
const maxSucceeded = 8

// admit enters the connection: it displaces the one that it replaces, takes
// over the calls that its FINISHED lists, and, beyond [maxConnections], displaces
// the one longest without a call. A list that claims what it cannot changes
// nothing. What a displaced connection has not read yet is void from here on.
func (c *core) admit(conn *connection) (takeover, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var t takeover
	var standing []*connection
	for _, other := range c.connections {
		switch {
		case other.share != conn.share:
		case conn.standsInFor(other):
			t.displaced = append(t.displaced, other)
		default:
			standing = append(standing, other)
		}
	}
	if err := c.claimCalls(conn, &t); err != nil {
		return takeover{}, err
	}
	if len(standing) >= maxConnections {
		t.displaced = append(t.displaced, slices.MinFunc(standing, c.idleLonger))
	}
	for _, taken := range t.calls {
		if taken.live != nil {
			taken.live.conn = conn
			taken.live.out.detach()
		}
	}
	for _, other := range t.displaced {
		delete(c.connections, other.id)
		c.release(other, true)
		conn.succeeds = append(conn.succeeds, other.succeeds...)
	}
	conn.succeeds = conn.succeeds[:min(len(conn.succeeds), maxSucceeded)]
	c.connections[conn.id] = conn
	return t, nil
}

// standsInFor reports whether the connection that FINISHED names is the other
// one, or one that the other stands in for: a client whose takeover was accepted,
// and that was lost before it heard so, names the connection it knows.
func (conn *connection) standsInFor(other *connection) bool {
	if len(conn.succeeds) == 0 {
		return false
	}
	named := conn.succeeds[0]
	return other.id == named || slices.Contains(other.succeeds, named)
}

// claimCalls finds what the list names. The core's lock is held.
func (c *core) claimCalls(conn *connection, t *takeover) error {
	for _, r := range conn.resume {
		taken := takenCall{id: r.ID, next: [2]uint64{r.Stdout, r.Stderr}}
		if slices.ContainsFunc(t.calls, func(other takenCall) bool { return other.id == taken.id }) {
			return fmt.Errorf("%w: a call is listed twice", errProtocol)
		}
		if err := c.claimCall(conn, t.displaced, &taken); err != nil {
			return err
		}
		t.calls = append(t.calls, taken)
	}
	for _, taken := range t.calls {
		if taken.live == nil && taken.ending.Cause == 0 {
			conn.share.Ledger.Begin(taken.id) // spent: it will never run
		}
	}
	return nil
}

// claimCall finds one call: a running one that nobody else carries, one that has
// ended, or one that never came, which is charged as a call.
func (c *core) claimCall(conn *connection, displaced []*connection, taken *takenCall) error {
	s := conn.share
	if l := s.live[taken.id]; l != nil {
		if l.conn != nil && !slices.Contains(displaced, l.conn) {
			return fmt.Errorf("%w: a call of a connection that stands is claimed", errProtocol)
		}
		if !l.out.reaches(taken.next) {
			return fmt.Errorf("%w: output is claimed that was not sent, or was acknowledged", errProtocol)
		}
		taken.live = l
		return nil
	}
	var sent [2]uint64
	ending, seen := s.Ledger.Lookup(taken.id)
	if seen {
		r, err := call.ParseResult(ending.End)
		if err != nil {
			return fmt.Errorf("%w: a call is claimed that has no end", errProtocol)
		}
		sent = [2]uint64{r.Stdout.Bytes, r.Stderr.Bytes}
		taken.ending = ending
	} else if err := s.Meter.Arrive(); err != nil {
		return err
	}
	if taken.next[0] > sent[0] || taken.next[1] > sent[1] {
		return fmt.Errorf("%w: output is claimed that was not sent", errProtocol)
	}
	return nil
}

// idleLonger orders connections by how long none of their calls has begun or
// ended; one with a running call is not idle. The core's lock is held.
func (c *core) idleLonger(a, b *connection) int {
	busy := func(conn *connection) int {
		for _, l := range conn.share.live {
			if l.conn == conn && !l.over {
				return 1
			}
		}
		return 0
	}
	if order := busy(a) - busy(b); order != 0 {
		return order
	}
	return int(max(-1, min(a.lastCall-b.lastCall, 1)))
}

// release takes a connection's calls off it: they end where their recipient has
// left or goes on without them, and else go on by themselves for [detachedFor].
// The core's lock is held.
func (c *core) release(conn *connection, left bool) {
	for id, l := range conn.share.live {
		if l.conn != conn {
			continue
		}
		l.conn, l.lost = nil, c.clock.Boot()
		l.out.detach()
		switch {
		case left && l.over:
			delete(conn.share.live, id)
		case left:
			l.end(&ended{cause: call.Cut, reason: "its recipient has left"})
		}
	}
}

// errLost is why a connection's own work ends.
var errLost = &ended{cause: call.Cut, reason: "the connection was lost"}

// cutLost ends the calls that have been on their own for too long, by the boot
// clock: a machine's sleep counts.
func (c *core) cutLost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shares {
		for id, l := range s.live {
			switch {
			case l.conn != nil || c.clock.Boot()-l.lost < detachedFor:
			case l.over:
				delete(s.live, id)
			default:
				l.end(&ended{cause: call.Cut, reason: fmt.Sprintf("the connection was lost, and nobody came back for the call within %s", detachedFor)})
			}
		}
	}
}

// resume answers the list, once the passport is out and before anything is read
// from the client: its calls go on, their ends are told again, and what never
// came never will.
func (c *core) resume(conn *connection, t takeover) {
	for _, taken := range t.calls {
		conn.peer.Continue(taken.id, taken.next[0], taken.next[1])
		if l := taken.live; l != nil {
			c.logResumed(conn, l)
			l.out.carry(conn.peer, taken.next)
			c.calls.Go(func() { c.goOn(conn, l) })
		}
	}
	c.calls.Go(func() {
		for _, taken := range t.calls {
			if taken.live == nil {
				c.sayAgain(conn, taken)
			}
		}
	})
}

// goOn sends what a call has kept by the connection that now carries it. The
// call's own end goes before what is left to send.
func (c *core) goOn(conn *connection, l *liveCall) {
	ctx, stop := context.WithCancel(conn.ctx)
	defer stop()
	unhook := context.AfterFunc(l.ctx, func() {
		if context.Cause(l.ctx) != errDone {
			stop()
		}
	})
	defer unhook()
	l.out.mu.Lock()
	notice := l.notice
	l.out.mu.Unlock()
	if notice != nil {
		_ = conn.peer.Notify(*notice) // as in say
	}
	l.settle(ctx)
	c.forgetHeard(l)
}

// sayAgain tells the end of a call that is over, or that it was never seen.
func (c *core) sayAgain(conn *connection, taken takenCall) {
	if taken.ending.Cause == 0 {
		s := conn.share
		act := &action{
			issuer: s.issuer, agent: s.Issuer.Agent, session: s.Session, conn: conn, meter: s.Meter, core: c,
			request: call.Request{ID: taken.id},
		}
		done := c.deny(act, &ended{cause: call.Unseen, reason: "the request never came"})
		taken.ending = session.Ending{Cause: done.cause, End: done.end.body, Signature: done.end.signature, Reason: printable(done.reason)}
		s.Ledger.End(taken.id, taken.ending)
	}
	_ = sayEnd(conn.peer, taken.id, taken.ending) // as for any other call
}

// logResumed enters that a call is carried by another connection from here on.
func (c *core) logResumed(conn *connection, l *liveCall) {
	e := conn.event("resume")
	e.Call, e.Verb = l.id.String(), l.act.request.Verb
	if err := c.record(e); err != nil {
		c.endShare(conn.share, call.AuditFailure, "the log could not be written")
	}
}

// refuseTakeover enters a list that was refused: one entry in ten seconds.
func (c *core) refuseTakeover(conn *connection, why error) error {
	conn.share.NoteRefused()
	if n, due := conn.share.lies.note(c.clock.Boot(), 10*time.Second); due {
		e := conn.event("refuse")
		e.Reason, e.Count = why.Error(), n
		if err := c.record(e); err != nil {
			c.endShare(conn.share, call.AuditFailure, "the log could not be written")
		}
	}
	return why
}

// carrierOf is the connection that an answer to the call is for: the one that
// carries it, or the one it came by.
func (c *core) carrierOf(act *action) *connection {
	if act.live == nil {
		return act.conn
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if act.live.conn != nil {
		return act.live.conn
	}
	return act.conn
}

// succeeded are the connections that FINISHED replaces: one, or none.
func succeeded(f channel.Finished) []connID {
	if f.Replaces == (connID{}) {
		return nil
	}
	return []connID{f.Replaces}
}

// event is a log event about the connection.
func (conn *connection) event(kind string) audit.Event {
	e := sessionEvent(kind, conn.share.Session)
	e.Connection = fmt.Sprintf("%x", conn.id)
	return e
}
