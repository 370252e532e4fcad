package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// Conn is a peer's connection as its relay has it, over whichever rung it came
// (wire/README.md §12): the relay does not look below.
type Conn interface {
	// Exporter is what proofs on this connection are bound to.
	Exporter() [32]byte
	RemoteAddr() net.Addr
	// Context ends with the connection.
	Context() context.Context
	// First is the stream on which the peer says what it is. It is called once.
	First(context.Context) (Stream, error)
	// TakeClient lets the first stream be a client's leg, and TakeDaemon the
	// connection a daemon's, whose control stream it returns. Before either,
	// Close is a refusal.
	TakeClient() error
	TakeDaemon(context.Context) (control Stream, err error)
	// OpenStream opens a leg towards a daemon, without waiting for its credit.
	OpenStream() (Stream, error)
	// Close ends the connection, and tells the peer the code where the rung still
	// can. It may wait for a peer that does not read, for a second or two, and may
	// be called from anywhere; only the first call counts.
	Close(code uint64)
}

// Stream is one stream of a connection. Reads and writes may run beside each
// other; neither may run beside itself.
type Stream interface {
	io.Reader
	io.Writer
	// Wait returns nil once there is something to read, or why there never will
	// be. Waiting holds no buffer.
	Wait() error
	// CloseWrite ends this direction after what was written.
	CloseWrite() error
	// CancelRead and CancelWrite end one direction at once and give its credit
	// back. Over TCP a stream that did not end well ends in both directions.
	CancelRead(code uint64)
	CancelWrite(code uint64)
	// Context ends when nothing more can be written.
	Context() context.Context
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// link is a connection to a relay as the one who dialed it has it: all that
// differs between rungs.
type link interface {
	rung() Rung
	// exporter is what proofs are bound to.
	exporterKey() [32]byte
	// join sends a client's first message, and returns its leg.
	join(ctx context.Context, message []byte) (Stream, error)
	// stand sends a daemon's first message, and returns its control stream.
	stand(ctx context.Context, message []byte) (Stream, error)
	// accept returns the next stream that the relay opens.
	accept(ctx context.Context) (Stream, error)
	// probe has a daemon's relay answer, where a heartbeat draws nothing by itself.
	probe()
	// arrivals counts what has come from the relay: packets, acknowledgements too,
	// or pieces of a TCP connection.
	arrivals() uint64
	// lost ends the connection and leaves what is under it for close.
	lost()
	close()
}

// ResetCode is the code that the peer ended a stream with.
func ResetCode(err error) (code uint64, ok bool) {
	if s, is := errors.AsType[*quic.StreamError](err); is && s.Remote {
		return uint64(s.ErrorCode), true
	}
	if s, is := errors.AsType[*yamux.StreamError](err); is && s.Remote {
		return uint64(s.ErrorCode), true
	}
	return CodeDone, false
}

// answeredError is a relay's answer over TCP to what was said first.
type answeredError struct{ status wire.Status }

func (e *answeredError) Error() string { return "the relay did not take the first message" }

// peerCode is the code with which the peer ended a stream, or all of them.
func peerCode(err error) uint64 {
	if code, ok := ResetCode(err); ok {
		return code
	}
	if a, ok := errors.AsType[*quic.ApplicationError](err); ok && a.Remote {
		return uint64(a.ErrorCode)
	}
	if a, ok := errors.AsType[*yamux.GoAwayError](err); ok && a.Remote {
		return uint64(a.ErrorCode)
	}
	if a, ok := errors.AsType[*answeredError](err); ok {
		return uint64(a.status)
	}
	return CodeDone
}
