package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// A handle may name several relays, of which one may be dead, or hostile
// (wire/README.md §8.3). The ways by them are tried one after the other without
// giving the earlier ones up, each as far as to the daemon's msg2. FINISHED is
// for one at a time, and for the next where nothing comes of that.
const (
	// relayAfter is the head start of each relay before the next: enough to get
	// through where UDP is blocked.
	relayAfter = time.Second
	// readyWithin is how long one may keep the next waiting that has msg2 too.
	readyWithin = 1500 * time.Millisecond
)

// arrival is a connection that stands, and by which relay.
type arrival struct {
	conn     *channel.Conn
	passport *passport.Passport
	relay    wire.Relay
	rung     tunnel.Rung
}

// rungOf is the way by which a leg came; legs of other makings come by the best.
func rungOf(leg wire.Leg) tunnel.Rung {
	if l, ok := leg.(interface{ Rung() tunnel.Rung }); ok {
		return l.Rung()
	}
	return tunnel.QUIC
}

// attempt connects once, and returns when the passport is verified.
func (r *reach) attempt(ctx context.Context) (arrival, error) {
	if len(r.relays) == 1 {
		return r.by(ctx, r.relays[0], r.beforeFinished)
	}
	race := relayRace{reach: r, arrived: make(chan *runner), results: make(chan *runner, len(r.relays))}
	return race.run(ctx)
}

// relayRace belongs to one goroutine, which awaits its runners.
type relayRace struct {
	reach   *reach
	running sync.WaitGroup
	arrived chan *runner // at msg2
	results chan *runner

	runners []*runner // that were started
	ended   int
	waiting []*runner // with msg2, in the order of their coming
	ahead   *runner   // that may send FINISHED
	since   time.Time
}

// runner is the way by one relay.
type runner struct {
	relay  wire.Relay
	goOn   chan struct{} // closed when it may send FINISHED
	giveUp context.CancelFunc

	arrival arrival // set before it is among the results
	err     error
}

func (race *relayRace) run(ctx context.Context) (arrival, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer race.running.Wait()
	defer cancel()
	all := race.reach.relays
	race.start(ctx)
	next, late := time.NewTimer(relayAfter), time.NewTimer(readyWithin)
	defer next.Stop()
	defer late.Stop()
	var errs error
	for race.ended < len(all) {
		select {
		case <-next.C:
			race.start(ctx)
			next.Reset(relayAfter)
		case w := <-race.arrived:
			race.waiting = append(race.waiting, w)
		case w := <-race.results:
			if w.err == nil || final(w.err) {
				return w.arrival, w.err
			}
			errs = errors.Join(errs, w.err)
			race.lost(w)
			if race.ended == len(race.runners) {
				race.start(ctx)
				next.Reset(relayAfter)
			}
		case <-late.C:
		}
		race.advance(late)
	}
	return arrival{}, errs
}

// final reports whether another relay cannot make it better: the daemon itself
// has spoken, or this client does not want to any more.
func final(err error) bool {
	_, over := errors.AsType[*OverError](err)
	return over || errors.Is(err, errLively) || errors.Is(err, errClaimed)
}

// start sends the next one, if there is one.
func (race *relayRace) start(ctx context.Context) {
	if len(race.runners) == len(race.reach.relays) {
		return
	}
	w := &runner{relay: race.reach.relays[len(race.runners)], goOn: make(chan struct{})}
	race.runners = append(race.runners, w)
	ctx, w.giveUp = context.WithCancel(ctx)
	race.running.Go(func() {
		defer w.giveUp()
		w.arrival, w.err = race.reach.by(ctx, w.relay, func() error { return race.gate(ctx, w) })
		race.results <- w
	})
}

// gate holds a runner before FINISHED until it is the one.
func (race *relayRace) gate(ctx context.Context, w *runner) error {
	select {
	case race.arrived <- w:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-w.goOn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if before := race.reach.beforeFinished; before != nil {
		return before()
	}
	return nil
}

func (race *relayRace) lost(w *runner) {
	race.ended++
	if race.ahead == w {
		race.ahead = nil
	}
	if i := slices.Index(race.waiting, w); i >= 0 {
		race.waiting = slices.Delete(race.waiting, i, i+1)
	}
}

// advance lets the first that waits send FINISHED, once none is ahead of it. One
// that keeps it waiting for too long is given up; then its result comes.
func (race *relayRace) advance(late *time.Timer) {
	if len(race.waiting) == 0 {
		return
	}
	if race.ahead != nil {
		if left := readyWithin - time.Since(race.since); left > 0 {
			late.Reset(left)
			return
		}
		race.ahead.giveUp()
		return
	}
	race.ahead, race.since = race.waiting[0], time.Now()
	race.waiting = race.waiting[1:]
	close(race.ahead.goOn)
	late.Reset(readyWithin)
}
