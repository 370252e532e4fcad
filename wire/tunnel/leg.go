package tunnel

import (
	"fmt"
	"sync"

	"openscope/wire"
)

// leg is a stream as wire.Leg: with the relay's codes as errors, and with a
// reset that frees both directions.
type leg struct {
	Stream
	release func() // what goes with the leg; nil for a daemon's
	by      Rung
	once    sync.Once
}

var _ wire.Leg = (*leg)(nil)

func (l *leg) Read(p []byte) (int, error) {
	n, err := l.Stream.Read(p)
	return n, legError(err)
}

func (l *leg) Write(p []byte) (int, error) {
	n, err := l.Stream.Write(p)
	return n, legError(err)
}

// Rung is the way by which the relay was reached; a daemon's legs come by its
// connection's.
func (l *leg) Rung() Rung { return l.by }

// Reset gives the stream's credit back in both directions.
func (l *leg) Reset() {
	l.once.Do(func() {
		l.Stream.CancelRead(CodeDone)
		l.Stream.CancelWrite(CodeDone)
		if l.release != nil {
			l.release()
		}
	})
}

// legError tells what a relay's code means.
func legError(err error) error {
	if err == nil {
		return nil
	}
	switch peerCode(err) {
	case CodeRefused:
		return fmt.Errorf("%w: %w", wire.ErrRefused, err)
	case CodeDraining:
		return fmt.Errorf("%w: %w", wire.ErrDraining, err)
	case CodeSuperseded:
		return fmt.Errorf("%w: %w", wire.ErrSuperseded, err)
	}
	return err
}
