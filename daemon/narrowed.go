package daemon

import (
	"context"
	"time"

	"openscope/wire/call"
)

// runningCall is a call under way, as it was decided.
type runningCall struct {
	act   action // a copy: the call's own is not touched while it runs
	stop  context.CancelCauseFunc
	since time.Time
}

// underway lets a reload find the call until the returned function is called.
// Rules that were replaced since the call was decided are asked at once, so
// that none slips in between.
func (c *core) underway(act *action, stop context.CancelCauseFunc) func() {
	r := &runningCall{act: *act, stop: stop, since: c.clock.Wall()}
	c.mu.Lock()
	c.running[r] = struct{}{}
	c.mu.Unlock()
	if c.rules.Load() != act.rules {
		c.endIfNarrowed(r)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, r)
	}
}

// endNarrowed ends every running call that would not be allowed now.
func (c *core) endNarrowed() {
	c.mu.Lock()
	all := make([]*runningCall, 0, len(c.running))
	for r := range c.running {
		all = append(all, r)
	}
	c.mu.Unlock()
	for _, r := range all {
		c.endIfNarrowed(r)
	}
}

func (c *core) endIfNarrowed(r *runningCall) {
	now := r.act
	err := now.resolve(c.rules.Load())
	if err == nil {
		err = now.withinPassport()
	}
	if err == nil {
		err = now.decide()
	}
	if err != nil {
		r.stop(&ended{cause: call.Denied, reason: "no longer allowed: " + err.Error()})
	}
}
