package daemon

import (
	"context"
	"time"

	"openscope/wire/call"
)

// endShare ends a session for everybody: its calls are killed, its clients are
// told, the log has it; so for those narrowed from it. Only the first end counts. It does not wait for the
// calls: each logs its own outcome.
func (c *core) endShare(s *share, cause call.Cause, reason string) {
	if !s.End(cause, reason, c.clock.Wall()) {
		return
	}
	over := []*share{s}
	for _, child := range c.childrenOf(s.Session) {
		if child.End(cause, reason, c.clock.Wall()) {
			over = append(over, child)
		}
	}
	// Nobody's work goes on while another's end is written down.
	for _, s := range over {
		s.cancel(&ended{cause: cause, reason: reason})
		for _, conn := range c.connectionsOf(s) {
			c.disconnect(conn, cause, reason)
		}
	}
	for _, s := range over {
		c.logEnd(s, cause, reason)
	}
}

func (c *core) logEnd(s *share, cause call.Cause, reason string) {
	kind := "close"
	switch cause {
	case call.Revoked:
		kind = "revoke"
	case call.Expired:
		kind = "expire"
	}
	e := sessionEvent(kind, s.Session)
	e.Cause, e.Reason = cause.String(), reason
	// The session is over whether or not this can be written; record has said so.
	_ = c.record(e)
}

// watchInterval is how often deadlines are looked at, whatever they are said
// to be: timers stand still while the machine sleeps, a ticker notices after
// waking, and every call asks anew.
const watchInterval = 100 * time.Millisecond

// watch ends sessions at their deadline and forgets them at their hard limit.
func (c *core) watch(ctx context.Context) {
	timer := time.NewTimer(watchInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			c.sweep()
			timer.Reset(c.untilNextDeadline())
		}
	}
}

// untilNextDeadline is the time to the next deadline, and at most watchInterval.
func (c *core) untilNextDeadline() time.Duration {
	next := watchInterval
	for _, s := range c.sessions.All() {
		if left := s.Lifetime.Remaining(); left > 0 {
			next = min(next, left)
		}
	}
	return next
}

func (c *core) sweep() {
	defer c.cutLost() // a session's own end goes before
	for _, s := range c.sessions.All() {
		share, ok := c.shareOf(s.RID)
		if ok && s.Lifetime.Remaining() == 0 {
			c.endShare(share, call.Expired, "its time has passed")
		}
		if ok && s.Lifetime.HardRemaining() == 0 {
			c.dropShare(share)
		}
		if c.clock.Wall().Sub(s.Lifetime.HardLimit()) > listedFor {
			c.sessions.Forget(s)
		}
	}
}

// listedFor is how long after its hard limit a session is still listed.
const listedFor = time.Hour

// dropShare forgets the keys of a session: nobody can shake hands for it again.
func (c *core) dropShare(s *share) {
	c.network.Drop(s.RID)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.shares, s.RID)
}
