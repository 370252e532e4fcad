package call

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The bounds of what is in flight on a connection, sent and not acknowledged
// (§6.3): twice what the path holds, so that it is kept busy and a small answer
// does not stand behind a long queue; never more than it delivers in one second.
const (
	minInFlight   = 16 << 10
	startInFlight = 64 << 10
	maxInFlight   = 1 << 20

	// slack is added to it: what ends take that are awake. With less they wake for
	// less at a time, at a third more of processor time.
	slack = 500 * time.Microsecond
	// longestGap bounds what is in flight so that ends that sleep find enough.
	longestGap = 10 * time.Millisecond
	// forget is how long a least delay counts: paths change.
	forget = 10 * time.Second
)

// Flow accounts for output that is on its way: per call against the credit its
// reader gave, per connection against what the path delivers. A reader that
// stalls holds up its own call only. One lock and a condition; no goroutine.
type Flow struct {
	now func() time.Time

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	calls    map[ID]*callFlow
	inFlight uint64
	window   uint64
	measured time.Time // start of the current measurement
	acked    uint64    // bytes acknowledged since
	rates    rates
	delay    delay
	gaps     gaps
	err      error
}

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

// callFlow is one call's part.
type callFlow struct {
	sent, received [2]uint64
	limit          uint64 // of sent, both streams together
}

// ErrFlow is wrapped when a peer's acknowledgement makes no sense.
var ErrFlow = errors.New("flow control violated")

// ErrOver is returned by Take for a call that is not open.
var ErrOver = errors.New("the call is over")

// NewFlow returns a flow with no call open.
func NewFlow(now func() time.Time) *Flow {
	return &Flow{
		now: now, changed: make(chan struct{}), calls: make(map[ID]*callFlow),
		window: startInFlight, measured: now(),
	}
}

// Open admits a call, with the credit every call begins with.
func (f *Flow) Open(id ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[id] == nil {
		f.calls[id] = &callFlow{limit: startInFlight}
	}
}

// Resume admits a call that another connection carried before: what was
// received there counts as sent and received, and there is no credit yet.
func (f *Flow) Resume(id ID, stdout, stderr uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[id] == nil {
		next := [2]uint64{stdout, stderr}
		f.calls[id] = &callFlow{sent: next, received: next, limit: stdout + stderr}
	}
}

// Close forgets a call. What of it is still on its way no longer counts.
func (f *Flow) Close(id ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[id]; c != nil {
		f.inFlight -= c.total(c.sent) - c.total(c.received)
		f.delay.waiting = 0 // it may have been among these
		delete(f.calls, id)
		f.wake()
	}
}

// Fail ends every wait with the error, now and later.
func (f *Flow) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.wake()
	}
}

// Take blocks until some of max bytes of the stream may be sent, and returns
// how many and their offset.
func (f *Flow) Take(ctx context.Context, id ID, s Stream, max int) (n int, offset uint64, err error) {
	for {
		n, offset, wait, err := f.try(id, s, max)
		if n > 0 || err != nil {
			return n, offset, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, 0, context.Cause(ctx)
		}
	}
}

func (f *Flow) try(id ID, s Stream, max int) (n int, offset uint64, wait chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls[id]
	switch {
	case f.err != nil:
		return 0, 0, nil, f.err
	case c == nil:
		return 0, 0, nil, ErrOver
	}
	room := min(uint64(max), c.limit-c.total(c.sent), f.window-min(f.window, f.inFlight))
	if room == 0 {
		f.gaps.full = f.gaps.full || f.inFlight >= f.window
		return 0, 0, f.changed, nil
	}
	offset = c.sent[s-1]
	c.sent[s-1] += room
	if f.inFlight == 0 {
		f.gaps.full, f.gaps.last = false, f.now()
	}
	f.inFlight += room
	if f.delay.waiting == 0 { // the newest byte is timed, as none is
		f.delay.waiting, f.delay.sent = f.inFlight, f.now()
	}
	return int(room), offset, nil, nil
}

// Acknowledge takes a WINDOW. One for a call that is over is ignored: it was on
// its way when the call ended.
func (f *Flow) Acknowledge(w Window) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls[w.ID]
	if c == nil {
		return nil
	}
	received := [2]uint64{w.Stdout, w.Stderr}
	for i := range received {
		if received[i] < c.received[i] || received[i] > c.sent[i] {
			return fmt.Errorf("%w: %d bytes acknowledged of %d sent", ErrFlow, received[i], c.sent[i])
		}
	}
	fresh := c.total(received) - c.total(c.received)
	c.received = received
	f.inFlight -= fresh
	now := f.now()
	f.delay.acknowledge(fresh, now)
	f.gaps.acknowledge(now)
	c.limit = max(c.limit, c.total(received)+min(w.Credit, MaxCredit))
	f.measure(fresh, now)
	f.wake()
	return nil
}

// measureFor is how long a measurement takes.
const measureFor = time.Second / 8

// measure sets the window by what the path has lately delivered, and how soon.
func (f *Flow) measure(fresh uint64, now time.Time) {
	f.acked += fresh
	elapsed := now.Sub(f.measured)
	if elapsed < measureFor {
		return
	}
	rate := uint64(float64(f.acked) / elapsed.Seconds())
	holds := uint64(float64(f.rates.add(rate)) * f.delay.room(now, f.gaps.measure()).Seconds())
	// A path that was not kept busy tells nothing about its speed.
	if holds > f.window || f.inFlight+f.acked >= f.window {
		f.window = min(max(min(holds, rate), minInFlight), maxInFlight)
	}
	f.acked, f.measured = 0, now
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

func (g *gaps) acknowledge(now time.Time) {
	if g.full {
		gap := now.Sub(g.last).Seconds()
		g.sum += gap
		g.squares += gap * gap
	}
	g.full, g.last = false, now
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

func (*callFlow) total(streams [2]uint64) uint64 { return streams[0] + streams[1] }

func (f *Flow) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}
