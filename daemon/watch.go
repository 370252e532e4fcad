package daemon

import (
	"context"
	"slices"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
)

// After a session has ended its calls still tell how they did.
const (
	lastWords = 2 * time.Second
	lastLook  = 100 * time.Millisecond
)

// Watch tells the issuer, or root, what happens in a session until it is over.
func (c *core) Watch(ctx context.Context, req control.WatchRequest, emit func(control.Event) error) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	s, err := c.owned(ctx, req.ID)
	if err != nil {
		return err
	}
	if s.Live() != nil {
		return control.Errorf(control.Over, "session %s is over: %s", s.ID, closing(s.Session).Cause).
			WithHint("run: openscope audit show " + s.ID)
	}
	w, err := c.feed.enter(s.ID, who.UID)
	if err != nil {
		return err
	}
	defer c.feed.leave(w)
	if err := emit(c.sessionNow(s.Session)); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Over():
			return c.watchEnd(ctx, s.Session, w, emit)
		case <-w.wake:
			if err := c.tell(s.Session, w, emit); err != nil {
				return err
			}
		}
	}
}

// tell emits what the watcher has not seen, and then, unless it was output only,
// how the session stands.
func (c *core) tell(s *session.Session, w *watcher, emit func(control.Event) error) error {
	events, missed := w.take()
	if missed > 0 {
		if err := emit(control.Event{Time: c.clock.Wall(), Kind: control.EventMissed, Count: missed}); err != nil {
			return err
		}
	}
	for _, e := range events {
		if err := emit(e); err != nil {
			return err
		}
	}
	if missed == 0 && !slices.ContainsFunc(events, func(e control.Event) bool { return e.Kind != control.EventOutput }) {
		return nil
	}
	return emit(c.sessionNow(s))
}

// watchEnd goes on until nothing of the session runs, and has been seen not to
// for a moment: its calls enter their outcomes after they have ended.
func (c *core) watchEnd(ctx context.Context, s *session.Session, w *watcher, emit func(control.Event) error) error {
	look := time.NewTicker(lastLook)
	defer look.Stop()
	deadline := time.NewTimer(lastWords)
	defer deadline.Stop()
	for quiet := 0; quiet < 2; {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
			quiet = -1
		case <-look.C:
		case <-deadline.C:
			quiet = 2
		}
		if err := c.tell(s, w, emit); err != nil {
			return err
		}
		quiet++
		if len(c.runningOf(s)) > 0 {
			quiet = min(quiet, 0)
		}
	}
	return emit(c.sessionNow(s))
}

// sessionNow is the session as it stands, as an event.
func (c *core) sessionNow(s *session.Session) control.Event {
	now := c.describe(s)
	return control.Event{Time: c.clock.Wall(), Kind: control.EventSession, Session: &now}
}

// runningOf lists the session's calls that run, oldest first.
func (c *core) runningOf(s *session.Session) []control.RunningCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []control.RunningCall
	for r := range c.running {
		if r.act.session == s {
			list = append(list, control.RunningCall{
				ID: r.act.request.ID.String(), Verb: r.act.verb.Name, Params: paramsOf(&r.act), Since: r.since,
			})
		}
	}
	slices.SortFunc(list, func(a, b control.RunningCall) int { return a.Since.Compare(b.Since) })
	return list
}
