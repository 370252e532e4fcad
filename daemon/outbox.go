package daemon

import (
	"context"
	"errors"
	"sync"

	"openscope/wire/call"
)

// outbox is a call's output between its executor and whichever connection
// carries the call (wire/README.md §8). What the recipient has not acknowledged
// is kept, so that a later connection can go on at the right byte.
//
// A write returns once its bytes were sent, as if there were no outbox; while no
// connection carries the call, once they are kept. Never more than
// [call.MaxCredit] is kept, both streams together: beyond it a write waits. Each
// stream is written from one goroutine.
type outbox struct {
	id call.ID
	// sending holds whoever sends of a stream; whoever sends END holds both.
	sending [2]chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	peer    peer          // nil while no connection carries the call
	turn    int           // counts the changes of peer, from 1
	streams [2]keptStream
}

// keptStream is one stream from the first byte that was not acknowledged on.
type keptStream struct {
	kept  []byte
	acked uint64
	sent  uint64 // to the peer of this turn
	high  uint64 // the recipient of any turn may have come so far
}

func (s *keptStream) end() uint64 { return s.acked + uint64(len(s.kept)) }

func newOutbox(id call.ID, p peer) *outbox {
	return &outbox{
		id: id, peer: p, turn: 1, changed: make(chan struct{}),
		sending: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
	}
}

// write is the call's [sink].
func (o *outbox) write(ctx context.Context, s call.Stream, data []byte) (int, error) {
	written := 0
	for written < len(data) {
		n, err := o.keep(ctx, s, data[written:])
		if err != nil {
			return written, err
		}
		written += n
		if back, err := o.deliver(ctx, s, n); err != nil {
			return written - back, err
		}
	}
	return written, nil
}

// keep takes as much of data as there is room for, and waits while there is none.
func (o *outbox) keep(ctx context.Context, s call.Stream, data []byte) (int, error) {
	for {
		o.mu.Lock()
		room := call.MaxCredit - len(o.streams[0].kept) - len(o.streams[1].kept)
		if room > 0 {
			n := min(room, len(data))
			o.streams[s-1].append(data[:n])
			o.mu.Unlock()
			return n, nil
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// append never writes over bytes that may be on their way to a peer: it fills
// what is behind them, or moves on to a new place.
func (s *keptStream) append(data []byte) {
	if cap(s.kept)-len(s.kept) < len(data) {
		grown := make([]byte, len(s.kept), 2*len(s.kept)+len(data))
		copy(grown, s.kept)
		s.kept = grown
	}
	s.kept = append(s.kept, data...)
}

// deliver sends what is kept of the stream, by whichever connection carries the
// call, until all of it is sent or none carries it. When ctx ends first, it takes
// back what was not sent of the newest fresh bytes, and says how many those are.
func (o *outbox) deliver(ctx context.Context, s call.Stream, fresh int) (back int, err error) {
	select {
	case o.sending[s-1] <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx) // another sends; what is kept stays
	}
	defer func() { <-o.sending[s-1] }()
	for {
		o.mu.Lock()
		st, p, turn, changed := &o.streams[s-1], o.peer, o.turn, o.changed
		if p == nil || st.sent == st.end() {
			o.mu.Unlock()
			return 0, nil
		}
		from, piece := st.sent, st.kept[st.sent-st.acked:]
		st.high = max(st.high, st.end()) // some of it may arrive whatever Output says
		o.mu.Unlock()

		n, err := p.Output(ctx, o.id, s, piece)

		o.mu.Lock()
		moved := o.turn != turn
		if !moved {
			st.sent = max(from+uint64(n), st.acked) // which may be ahead of what Output says
		}
		o.mu.Unlock()
		switch {
		case moved || err == nil:
			continue
		case ctx.Err() != nil:
			return o.takeBack(s, fresh), context.Cause(ctx)
		case errors.Is(err, call.ErrOver):
			return o.takeBack(s, fresh), err // it ended on this connection, by a second CALL
		}
		// The connection is failing. Whoever reads from it notices, and the call
		// goes on without it.
		select {
		case <-changed:
		case <-ctx.Done():
			return o.takeBack(s, fresh), context.Cause(ctx)
		}
	}
}

// takeBack drops what was not sent of the newest bytes, at most so many.
func (o *outbox) takeBack(s call.Stream, most int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	st := &o.streams[s-1]
	n := min(uint64(most), st.end()-st.sent)
	st.kept = st.kept[:uint64(len(st.kept))-n]
	return int(n)
}

// acknowledge forgets what has come; what was never sent has not. It reports
// whether anything is still kept.
func (o *outbox) acknowledge(next [2]uint64) (kept bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.streams {
		st := &o.streams[i]
		if next[i] <= st.acked || next[i] > min(st.high, st.end()) {
			continue
		}
		st.kept = st.kept[next[i]-st.acked:]
		st.acked = next[i]
		st.sent = max(st.sent, st.acked)
	}
	o.wake()
	return len(o.streams[0].kept)+len(o.streams[1].kept) > 0
}

// reaches reports whether a recipient can have come so far, and may ask for
// what is behind it: not for what it has acknowledged already.
func (o *outbox) reaches(next [2]uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.streams {
		if st := &o.streams[i]; next[i] < st.acked || next[i] > min(st.high, st.end()) {
			return false
		}
	}
	return true
}

// carry hands the call to a connection, from the given bytes on.
func (o *outbox) carry(p peer, next [2]uint64) {
	o.acknowledge(next)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.streams {
		o.streams[i].sent = o.streams[i].acked
	}
	o.peer = p
	o.turn++
	o.wake()
}

// detach leaves the call to itself.
func (o *outbox) detach() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peer = nil
	o.turn++
	o.wake()
}

// carrier is who carries the call, and which turn it is; nil where nobody does.
func (o *outbox) carrier() (peer, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.peer, o.turn
}

func (o *outbox) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}
