package wire

import (
	"errors"
	"io"
	"time"
)

// What a relay can answer instead of a leg; Read and Write of a leg return
// errors that wrap them.
var (
	// ErrRefused: the relay knows no such session, or the proof was wrong. It
	// does not say which.
	ErrRefused = errors.New("the relay refused")
	// ErrDraining: the relay is going down; another attempt will be answered.
	ErrDraining = errors.New("the relay is draining")
	// ErrSuperseded: more legs came than a session may have, and this one was
	// the oldest that had not proved itself.
	ErrSuperseded = errors.New("the leg was superseded by a newer one")
)

// Leg is one end of a stream that a relay has spliced to its other end.
//
// Reads and writes may run beside each other; neither may run beside itself.
type Leg interface {
	io.Reader
	io.Writer
	// CloseWrite ends this direction; the peer reads EOF after what was written.
	CloseWrite() error
	// Reset ends both directions at once and frees everything behind the leg.
	// It may be called at any time, also twice.
	Reset()
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}
