package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// climbedWithin is how long READY may take on a way that has just carried msg2:
// from FINISHED on nothing comes by the other, and somebody waits.
const climbedWithin = 5 * time.Second

// errNeedless says that the way up leads nowhere any more: what it was to take
// the place of is gone, or is being left.
var errNeedless = errors.New("there is nothing to climb from")

// climber tries QUIC again beside a link that stands on something less, and makes
// a link of it as soon as it works: a whole handshake, before the other is let go.
type climber struct {
	s      *Session
	from   *link
	ways   tunnel.Ways // up
	better chan *link  // what came of it; closed when it has ended

	dialing context.Context // ends with stop, and with the session
	giveUp  context.CancelFunc

	mu      sync.Mutex // guards what is below
	stopped bool
	taken   bool // the calls are on their way to the new link
}

// climb begins to climb from a link, if there is something above it.
func (s *Session) climb(from *link) *climber {
	c := &climber{s: s, from: from, better: make(chan *link, 1)}
	c.dialing, c.giveUp = context.WithCancel(s.ctx)
	var ok bool
	if c.ways, ok = s.reach.ways.Climb(from.rung); ok && s.reach.cfg.Redial {
		s.goroutines.Go(c.run)
	}
	return c
}

// stop ends the attempt, unless the calls are on their way already: then it
// returns where they have arrived, if they have.
func (c *climber) stop() *link {
	c.mu.Lock()
	c.stopped = true
	taken := c.taken
	c.mu.Unlock()
	if !taken {
		c.giveUp()
		return nil
	}
	defer c.giveUp()
	return <-c.better
}

func (c *climber) run() {
	defer close(c.better)
	for {
		select {
		case <-time.After(tunnel.ClimbPause()):
		case <-c.dialing.Done():
			return
		}
		l, err := c.attempt()
		if err == nil {
			c.better <- l
			return
		}
		c.s.reach.cfg.Logger.Debug("trying a better way", "error", err)
		c.mu.Lock()
		over := c.taken || c.stopped
		c.mu.Unlock()
		if over {
			return
		}
	}
}

func (c *climber) attempt() (*link, error) {
	ctx, cancel := context.WithTimeout(c.dialing, attemptFor)
	defer cancel()
	r := *c.s.reach
	r.ways = c.ways
	r.relays = withFirst(r.relays, c.from.relay)
	r.beforeFinished = c.take
	var listed []*pending
	r.takeOver = func() ([16]byte, []channel.Resume) {
		time.AfterFunc(climbedWithin, cancel) // after the attempt it cancels nothing
		calls, all := c.s.unfinished(c.from)
		listed = all
		return c.s.daemon.id, calls
	}
	a, err := r.attempt(ctx)
	if err != nil {
		return nil, err
	}
	return c.s.goOn(a, listed)
}

// take decides that the calls go: from here on stop waits for them. A handle's
// relays may each ask; once is enough.
func (c *climber) take() error {
	c.s.mu.Lock()
	closing := c.s.closing
	c.s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if closing || c.stopped {
		return errNeedless
	}
	c.taken = true
	return nil
}

// withFirst puts one of the relays first: the one that is known to work.
func withFirst(relays []wire.Relay, first wire.Relay) []wire.Relay {
	all := slices.Clone(relays)
	if i := slices.IndexFunc(all, func(r wire.Relay) bool { return r.Address == first.Address }); i > 0 {
		copy(all[1:], relays[:i])
		all[0] = relays[i]
	}
	return all
}
