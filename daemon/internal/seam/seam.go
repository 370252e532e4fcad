package seam

import (
	"context"
	"errors"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// ConnID names one connection on both sides of the seam.
type ConnID = [16]byte

// Authority is everything the net half may ask of the core. The core believes
// none of it: transcripts are computed, and signatures verified, on its side.
// A hostile net half can drop, delay and read; it cannot make a call.
type Authority interface {
	// Answer and Accept are the core's part of the handshake.
	channel.Authority

	// ProveHello and ProveRegister sign for one relay connection, named by its
	// TLS exporter (wire/README.md §3).
	ProveHello(exporter [32]byte) (wire.TokenID, []byte, error)
	ProveRegister(exporter [32]byte, rid wire.RendezvousID) (wire.Register, error)

	// Attach makes an accepted connection live: the core issues the passport,
	// and may use the peer from then on. For a session that has ended the error
	// is an *[EndedError], and the net half owes the client a CLOSE.
	Attach(id ConnID, p Peer, facts Attachment) error
	// TakeCall takes one CALL record. An error is a breach of the protocol, after
	// which the connection must end; everything else is answered by END.
	TakeCall(id ConnID, body, signature []byte) error
	// Cancel ends a running call of this connection.
	Cancel(id ConnID, id2 call.ID)
	// Challenge draws a fresh challenge for a PING or PONG.
	Challenge(id ConnID) (call.Challenge, error)
	// Acknowledge says what the client has of a call's output.
	Acknowledge(id ConnID, w call.Window)
	// Detach says that the connection is gone; left, that the client said so
	// itself: then its calls end, and else they go on for a while.
	Detach(id ConnID, left bool)
}

// Attachment is what only the net half can know of a new connection.
type Attachment struct {
	// SAS is the secret behind the session words.
	SAS []byte
	// From is the client's address as the relay named it: hearsay.
	From string
}

// Peer is everything the core may ask of the net half for one connection.
type Peer interface {
	// Output sends data of one stream, blocking under flow control, and
	// returns how much of it was sent.
	Output(ctx context.Context, id call.ID, s call.Stream, data []byte) (int, error)
	// Continue admits a call that another connection carried, or one that is over,
	// before anything of it is sent: the client has so much of its streams.
	Continue(id call.ID, stdout, stderr uint64)
	// End sends a call's signed result; the call is over for flow control.
	End(id call.ID, body, signature []byte) error
	// Notify sends a notice, Issue a passport: the first, or a newer one.
	Notify(n call.Notice) error
	Issue(s passport.Signed) error
	// Probe returns nil once the client has answered a new PING.
	Probe(ctx context.Context) error
	// Close ends the connection: CLOSE once the running calls' results are
	// out, and after [CloseGrace] the reset, whatever was sent. It does not wait.
	Close(c call.Close)
}

// Network is everything the core may ask of the net half about sessions.
type Network interface {
	// Register makes the session known to the relays and returns those that
	// acknowledged it: the ones to name in the handle.
	Register(ctx context.Context, rid wire.RendezvousID) ([]wire.Relay, error)
	// Serve begins to answer handshakes for the session, and returns once it does:
	// whoever has the handle may come at once.
	Serve(s Served)
	// Drop forgets the session, at its hard limit.
	Drop(rid wire.RendezvousID)
	// Relays tells how each configured relay is reached.
	Relays() []RelayState
}

// Served is what the net half needs to shake hands for a session. It has the
// session's derived keys, never S.
type Served struct {
	RID        wire.RendezvousID
	Mode       channel.Mode
	HandleHash [32]byte
	Recipient  []byte // the recipient's X25519 key; nil for bearer
	Keys       *channel.Keys
}

// RelayState is one relay as status shows it.
type RelayState struct {
	Address   string
	Connected bool
	Rung      string // by which it is
	// Problem is why it is not connected.
	Problem string
}

// EndedError says that the session was over before the connection came.
type EndedError struct{ Closing call.Close }

func (e *EndedError) Error() string { return "the session is over: " + e.Closing.Cause.String() }

// ErrProtocol is why a connection ends whose client breaks the protocol.
var ErrProtocol = errors.New("the peer broke the protocol")

// CloseGrace is how long a connection has from CLOSE to the reset (wire/README.md §6).
const CloseGrace = 250 * time.Millisecond
