package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// liveCall is a call of a recipient's from its CALL until nothing of it need be
// sent again. It belongs to its session, and outlives the connection it came by.
type liveCall struct {
	// immutable
	id  call.ID
	act *action
	out *outbox
	ctx context.Context // ends with the session, with CANCEL, and with the call
	end context.CancelCauseFunc

	// guarded by the core's lock
	conn  *connection   // that carries it; nil while none does
	lost  time.Duration // boot clock, since when none does
	over  bool          // it has ended
	order uint64        // of ending

	// guarded by out.mu
	ending *session.Ending // once it has ended
	told   int             // the turn in which END was sent; see outbox.turn
	notice *call.Notice    // it waits for the issuer
}

// How long a lost connection's calls go on, and how many of a session's ended
// calls are kept whose output was not acknowledged (wire/README.md §8).
const (
	detachedFor = 60 * time.Second
	maxUnheard  = 8
)

// errSpent is why a call does not run whose id was used.
var errSpent = errors.New("the call id was used before")

// errDone ends the context of a call that has ended.
var errDone = errors.New("the call has ended")

// begin enters a call. Its id is spent in the same step, so that a connection
// that takes over finds it either running or unseen.
func (c *core) begin(conn *connection, act *action) (*liveCall, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connections[conn.id] != conn || conn.ctx.Err() != nil {
		return nil, fmt.Errorf("taking a call: %w", context.Cause(conn.ctx))
	}
	s := conn.share
	if !s.Ledger.Begin(act.request.ID) {
		return nil, errSpent
	}
	l := &liveCall{id: act.request.ID, act: act, out: newOutbox(act.request.ID, conn.peer), conn: conn}
	l.ctx, l.end = context.WithCancelCause(s.ctx)
	act.live = l
	s.live[l.id] = l
	conn.lastCall = c.clock.Boot()
	return l, nil
}

// finish keeps how the call ended, for the life of the session, and tells it
// whoever carries the call.
func (c *core) finish(l *liveCall, done outcome) {
	ending := session.Ending{Cause: done.cause, End: done.end.body, Signature: done.end.signature, Reason: printable(done.reason)}
	s := l.act.conn.share
	s.Ledger.End(l.id, ending)
	ended := l.ctx.Err() != nil
	l.end(errDone)
	l.out.mu.Lock()
	l.ending, l.notice = &ending, nil
	l.out.mu.Unlock()
	c.mu.Lock()
	l.over = true
	s.endings++
	l.order = s.endings
	conn := l.conn
	if conn != nil {
		conn.lastCall = c.clock.Boot()
	}
	c.mu.Unlock()
	if conn != nil {
		// A call that was ended tells so at once, whatever is left to send.
		ctx, stop := context.WithCancel(conn.ctx)
		if ended {
			stop()
		}
		l.settle(ctx)
		stop()
	}
	c.forgetHeard(l)
}

// settle sends by the connection that carries the call what is left to send:
// output, and END if it has ended.
func (l *liveCall) settle(ctx context.Context) {
	for _, s := range []call.Stream{call.Stdout, call.Stderr} {
		_, _ = l.out.deliver(ctx, s, 0) // what could not be sent, END does not hide
	}
	l.tell()
}

// tell sends END once by each connection. No output follows it there: whoever
// sends of a stream has to be done.
func (l *liveCall) tell() {
	for i := range l.out.sending {
		l.out.sending[i] <- struct{}{}
		defer func() { <-l.out.sending[i] }()
	}
	l.out.mu.Lock()
	p, turn, ending := l.out.peer, l.out.turn, l.ending
	again := ending == nil || l.told == turn
	if p != nil && !again {
		l.told = turn
	}
	l.out.mu.Unlock()
	if p != nil && !again {
		_ = sayEnd(p, l.id, *ending) // a connection that is gone is noticed by whoever reads from it
	}
}

// sayEnd answers a call: the reason in words where there is one, then the signed
// result (wire/README.md §6).
func sayEnd(p peer, id call.ID, how session.Ending) error {
	if how.End == nil {
		return errors.New("answering a call: its end could not be signed")
	}
	if how.Reason != "" {
		if err := p.Notify(call.Notice{Kind: call.NoticeReason, ID: id, Text: how.Reason}); err != nil {
			return err
		}
	}
	return p.End(id, how.End, how.Signature)
}

// say tells the recipient something about a call that waits. What they need to
// know while it does is said again by each connection that takes the call over;
// with nobody to tell, the call waits all the same.
func (l *liveCall) say(n call.Notice) {
	l.out.mu.Lock()
	l.notice = nil
	if n.Kind == call.NoticePending {
		l.notice = &n
	}
	p := l.out.peer
	l.out.mu.Unlock()
	if p != nil {
		_ = p.Notify(n)
	}
}

// Acknowledge forgets the output that has come. It is the net half's word: a
// false one loses output, which END then shows.
func (c *core) Acknowledge(id connID, w call.Window) {
	c.mu.Lock()
	var l *liveCall
	if conn := c.connections[id]; conn != nil {
		if l = conn.share.live[w.ID]; l != nil && l.conn != conn {
			l = nil
		}
	}
	c.mu.Unlock()
	if l == nil {
		return
	}
	if kept := l.out.acknowledge([2]uint64{w.Stdout, w.Stderr}); !kept {
		c.forgetHeard(l)
	}
}

// forgetHeard drops an ended call of which all was said and heard, and the
// oldest of too many of which not all was heard. Their ends stay in the ledger.
func (c *core) forgetHeard(l *liveCall) {
	l.out.mu.Lock()
	heard := l.told == l.out.turn && len(l.out.streams[0].kept)+len(l.out.streams[1].kept) == 0
	l.out.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.act.conn.share
	if !l.over || s.live[l.id] != l {
		return
	}
	if heard {
		delete(s.live, l.id)
		return
	}
	var oldest *liveCall
	unheard := 0
	for _, other := range s.live {
		if !other.over {
			continue
		}
		unheard++
		if oldest == nil || other.order < oldest.order {
			oldest = other
		}
	}
	if unheard > maxUnheard {
		delete(s.live, oldest.id)
	}
}

// Cancel ends one running call that the connection carries; ids of others are
// not found here, and a call that is over needs no cancelling.
func (c *core) Cancel(id connID, which call.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.connections[id]
	if conn == nil {
		return
	}
	if l := conn.share.live[which]; l != nil && l.conn == conn {
		l.end(&ended{cause: call.Cancelled, reason: "cancelled by the recipient"})
	}
}
