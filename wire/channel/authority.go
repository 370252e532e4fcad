package channel

import (
	"context"
	"time"

	"openscope/wire"
)

// Authority is what the daemon's side of the handshake asks of whoever holds
// the identity key. It is the seam of DESIGN.md: the channel passes bytes, and
// the authority computes the transcript itself and believes none of them.
type Authority interface {
	// Answer is asked once msg1 is known to come from a holder of S, is not a
	// replay and is within the rate. It draws the connection's id and nonce and
	// signs.
	Answer(ctx context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (Answer, error)
	// Accept is asked once FINISHED's HMAC is right. It checks the commitment,
	// whose key it is, and the signature.
	Accept(ctx context.Context, connID [16]byte, ct2, finished []byte) (Acceptance, error)
}

// Answer is the authority's part of msg2.
type Answer struct {
	ConnID        [16]byte
	P2, Signature []byte
}

// Acceptance is the authority's part of READY.
type Acceptance struct {
	Challenge [8]byte
	Remaining time.Duration
}
