package relay

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/quic-go/quic-go"

	"openscope/wire/tunnel"
)

// pieceSize is the most that is forwarded at once.
const pieceSize = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// splice forwards both ways until both directions have ended. A half-close
// passes through, as does a reset of either direction, and back-pressure: a
// side that does not read stops the other's writes by QUIC's own windows.
func (r *Relay) splice(leg uint64, near, far *quic.Stream) {
	var directions sync.WaitGroup
	directions.Go(func() { r.forward(leg, true, far, near) })
	directions.Go(func() { r.forward(leg, false, near, far) })
	directions.Wait()
}

// forward copies one direction to its end.
func (r *Relay) forward(leg uint64, up bool, dst, src *quic.Stream) {
	// While src is idle nothing is written, so that nothing would notice that
	// the reader of dst has gone.
	stop := context.AfterFunc(dst.Context(), func() { src.CancelRead(tunnel.CodeDone) })
	defer stop()
	err := r.copy(leg, up, dst, src)
	if err == nil {
		_ = dst.Close() // the other end may have reset it already
		return
	}
	code := quic.StreamErrorCode(tunnel.CodeDone)
	if s, ok := errors.AsType[*quic.StreamError](err); ok && s.Remote {
		code = s.ErrorCode
	}
	src.CancelRead(code)
	dst.CancelWrite(code)
}

func (r *Relay) copy(leg uint64, up bool, dst, src *quic.Stream) error {
	piece := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(piece)
	defer clear(piece[:])
	for {
		n, err := src.Read(piece[:])
		if n > 0 {
			if r.cfg.Tap != nil {
				r.cfg.Tap.Forwarded(leg, up, n, r.cfg.Clock())
			}
			if _, err := dst.Write(piece[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reset ends both directions of a stream and gives its credit back.
func reset(s *quic.Stream, code quic.StreamErrorCode) {
	s.CancelRead(code)
	s.CancelWrite(code)
}
