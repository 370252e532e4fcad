package relay

import (
	"context"
	"sync"
	"time"
)

const (
	// queueTime is how long a newcomer may wait for its turn; the handshake's own
	// time is longer. Who would wait longer is not heard, or refused at once.
	queueTime = time.Second
	// paceRange is how many times fewer handshakes are begun where forwarding
	// would wait for them.
	paceRange = 32
	// late is a turn that came so long after its time that the processors have
	// more to do than they can: a little more than timers are late by themselves.
	late = 2 * time.Millisecond
	// yieldTo is how many bytes a second have to be forwarded for handshakes to
	// yield at once: records of calls pass unnoticed, output does not. Turns that come
	// late would tell too late: one in sixteen has been by then, and of round
	// trips more.
	yieldTo = 4 << 20
	// yieldFor is how long they yield: whoever forwarded much will again.
	yieldFor = 5 * time.Second
)

// pace has handshakes begin one after another, as far apart as the limit says,
// and farther where the process gets too little time: a handshake costs what a
// megabyte forwarded does, and whoever begins one has proved nothing. Turns that
// come late are how it notices; nobody watches while nobody comes.
type pace struct {
	fastest, slowest time.Duration

	mu         sync.Mutex // guards what is below
	spacing    time.Duration
	next       time.Time
	begun      time.Time // the last one
	forwarding time.Time // until then so much is that the slowest holds
}

// newPace begins that many handshakes a second at most.
func newPace(rate float64) *pace {
	p := &pace{fastest: spacingOf(rate), slowest: spacingOf(rate / paceRange)}
	p.spacing = p.fastest
	return p
}

// spacingOf is as good as never where it is an hour.
func spacingOf(rate float64) time.Duration {
	return time.Duration(min(float64(time.Second)/rate, float64(time.Hour)))
}

// reserve gives the next turn, if it is soon enough.
func (p *pace) reserve(now time.Time) (turn time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full(now) {
		return time.Time{}, false
	}
	turn = now
	if p.next.After(now) {
		turn = p.next
	}
	p.next = turn.Add(p.spacing)
	if turn.Before(p.forwarding) {
		p.next = turn.Add(p.slowest)
	}
	return turn, true
}

// state reports whether no turn would be given now, and whether handshakes yield to
// what is forwarded.
func (p *pace) state(now time.Time) (full, yields bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full(now), now.Before(p.forwarding)
}

// full is asked by whoever holds the lock.
func (p *pace) full(now time.Time) bool { return p.next.Sub(now) > queueTime }

// begin takes a turn, a time after it was due. One in sixteen may be late: the
// pace falls by a third, and comes back in small steps. A turn that was given at
// a pace that no longer holds is lost: it comes too soon after the one before.
func (p *pace) begin(now time.Time, after time.Duration) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.forwarding) && now.Sub(p.begun) < p.slowest/2 {
		return false
	}
	p.begun = now
	if after > late {
		p.spacing = min(p.spacing+p.spacing/2, p.slowest)
	} else {
		p.spacing = max(p.spacing-p.spacing/32, p.fastest)
	}
	return true
}

// yield is told that much is forwarded.
func (p *pace) yield(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forwarding = now.Add(yieldFor)
}

// await waits for the visit's turn, and for another one where that is lost.
func (v *visit) await(ctx context.Context) error {
	for {
		if err := pause(ctx, time.Until(v.turn)); err != nil {
			return err
		}
		now := time.Now()
		if v.door.pace.begin(now, now.Sub(v.turn)) {
			return nil
		}
		turn, ok := v.door.pace.reserve(now)
		if !ok {
			return errCrowded
		}
		v.turn = turn
	}
}
