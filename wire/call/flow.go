package call

import (
	"context"
	"errors"
	"fmt"
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
	if f.delay.waiting == 0 { // the newest byte is timed, as none is
		now := f.now()
		if f.inFlight == 0 {
			f.gaps.begin(now)
		}
		f.delay.waiting, f.delay.sent = f.inFlight+room, now
	}
	f.inFlight += room
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

func (*callFlow) total(streams [2]uint64) uint64 { return streams[0] + streams[1] }

func (f *Flow) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}
