package call

import (
	"slices"
	"time"
)

// What acknowledgements tell of the path: how fast it is, how long it takes by
// itself, and how long the ends sleep. Together they are what may be in flight.
const (
	// slack is added to twice what the path holds, for ends that are awake: with
	// none they wake for less at a time, at a third more of processor time.
	slack = 500 * time.Microsecond
	// longestGap bounds what is in flight so that ends that sleep find enough.
	longestGap = 10 * time.Millisecond
	// forget is how long a least delay counts: paths change.
	forget = 10 * time.Second
)

// rates are the last measurements, a second of them. The best is taken for the
// path's: a path that stood still for a moment is not slower, and a window cut to
// what came through then would keep it so.
type rates struct {
	last [8]uint64
	next int
}

func (r *rates) add(rate uint64) (best uint64) {
	r.last[r.next] = rate
	r.next = (r.next + 1) % len(r.last)
	return slices.Max(r.last[:])
}

// delay is the least time of late from sending to acknowledgement: what the path
// takes by itself, without the queue before it.
type delay struct {
	waiting     uint64    // bytes of inFlight up to and with the one that is timed; zero times none
	sent        time.Time // when that one was sent
	least, last time.Duration
	begun       time.Time // when least began to be looked for; last is the one before
}

// acknowledge ends the timing when the timed byte is among the acknowledged.
func (d *delay) acknowledge(fresh uint64, now time.Time) {
	if d.waiting == 0 {
		return
	}
	if fresh < d.waiting {
		d.waiting -= fresh
		return
	}
	d.waiting = 0
	took := now.Sub(d.sent)
	if now.Sub(d.begun) > forget {
		d.begun, d.last, d.least = now, d.least, took
	}
	d.least = min(d.least, took)
}

// room is how much time's worth of bytes may be in flight: a second, which is the
// specification's bound, where no delay is known yet. As every stretch begins it
// is what the path holds and no more, until the queue must have gone: so that the
// least delay found is the path's, and not the queue's. Otherwise it is twice
// that, or an eighth more than the ends usually sleep: where they sleep for longer
// than what is in flight lasts, that is how more comes to be in flight.
func (d *delay) room(now time.Time, gap time.Duration) time.Duration {
	if d.begun.IsZero() {
		return time.Second
	}
	least := d.least
	if d.last > 0 {
		least = min(d.last, d.least)
		if now.Sub(d.begun) < max(4*least, time.Second/2) {
			return least
		}
	}
	return max(2*least+slack, min(gap+gap/8, longestGap))
}

// gaps are how long acknowledgements stay away while nothing more may be sent.
// Ends on a machine with other work sleep and wake by the millisecond: what is in
// flight has come and gone meanwhile, and the path ran dry. Where they are awake
// acknowledgements come several times for what is in flight, so that little in
// flight makes short gaps, and stays little.
type gaps struct {
	full         bool      // since the last acknowledgement nothing more could be sent
	last         time.Time // when that came, or the first byte after a rest was sent
	sum, squares float64   // of this measurement's, in seconds
	usual        time.Duration
}

// begin is where the next gap begins: at an acknowledgement, or after a rest.
func (g *gaps) begin(now time.Time) { g.full, g.last = false, now }

func (g *gaps) acknowledge(now time.Time) {
	if g.full {
		gap := now.Sub(g.last).Seconds()
		g.sum += gap
		g.squares += gap * gap
	}
	g.begin(now)
}

// measure ends a measurement. The gap it tells of is the one that a moment taken
// at random lies in, so that one long gap outweighs many short ones; of the last
// measurements the later count more.
func (g *gaps) measure() (usual time.Duration) {
	if g.sum > 0 {
		g.usual += (time.Duration(g.squares/g.sum*float64(time.Second)) - g.usual) / 4
		g.sum, g.squares = 0, 0
	}
	return g.usual
}
