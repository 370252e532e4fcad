package relay

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"openscope/wire/tunnel"
)

// pieceSize is the most that is forwarded at once.
const pieceSize = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// splice forwards both ways until both directions have ended. A half-close
// passes through, as does a reset of either direction, and back-pressure: a
// side that does not read stops the other's writes by QUIC's own windows.
func (r *Relay) splice(ctx context.Context, l *leg, acc *account, near, far tunnel.Stream) {
	var down sync.WaitGroup
	down.Go(func() { r.forward(ctx, l, acc, false, near, far) })
	r.forward(ctx, l, acc, true, far, near) // here: a goroutine less for each leg
	down.Wait()
}

// stallLimit is how long one write may wait for a peer that does not read. It
// is far beyond any round trip, and bounds how long a peer holds a window full.
const stallLimit = 2 * time.Minute

// forward copies one direction to its end. The context ends when everybody who is
// connected is being told to go.
func (r *Relay) forward(ctx context.Context, l *leg, acc *account, up bool, dst, src tunnel.Stream) {
	// While src is idle nothing is written, so that nothing would notice that
	// the reader of dst has gone.
	stop := context.AfterFunc(dst.Context(), func() {
		if ctx.Err() == nil {
			src.CancelRead(tunnel.CodeDone)
		}
	})
	defer stop()
	err := r.copy(l, acc, up, dst, src)
	if err == nil {
		stop() // over TCP, to cancel src would end its other direction too
		err = dst.CloseWrite()
		if err == nil {
			return
		}
	}
	if ctx.Err() != nil {
		return // the connection itself ends, and says why: a reset before it would not
	}
	code, _ := tunnel.ResetCode(err)
	src.CancelRead(code)
	dst.CancelWrite(code)
}

// copy forwards until src ends. A direction that is idle, or pauses, holds no
// buffer.
func (r *Relay) copy(l *leg, acc *account, up bool, dst, src tunnel.Stream) error {
	count := &r.counters.down
	if up {
		count = &r.counters.up
	}
	var last time.Time
	for n := 0; ; {
		err := src.Wait()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if pause := r.pauses.next(n, &last, time.Now()); n < pieceSize { // else there is enough already
			time.Sleep(pause)
		}
		n, err = r.forwardPiece(acc, dst, src)
		count.Add(uint64(n))
		l.forwarded.Add(uint64(n))
		if n > 0 && r.cfg.Tap != nil {
			r.cfg.Tap.Forwarded(l.number, up, n, r.cfg.Clock())
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// forwardPiece forwards what there is, and says how much it was.
func (r *Relay) forwardPiece(acc *account, dst, src tunnel.Stream) (int, error) {
	piece := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(piece)
	n, end := src.Read(piece[:])
	if n == 0 {
		return 0, end
	}
	defer clear(piece[:n])
	waits, ended := r.budget.begin(dst)
	defer r.budget.end(waits)
	if ended {
		r.counters.shed.Add(1)
	}
	if err := acc.spend(dst.Context(), n); err != nil {
		return 0, err
	}
	if err := dst.SetWriteDeadline(time.Now().Add(stallLimit)); err != nil {
		return 0, err
	}
	n, err := dst.Write(piece[:n])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.counters.stalled.Add(1)
	}
	if err != nil {
		return n, err
	}
	return n, end
}

// reset ends both directions of a stream and gives its credit back.
func reset(s tunnel.Stream, code uint64) {
	s.CancelRead(code)
	s.CancelWrite(code)
}
