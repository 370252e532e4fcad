package wire

import (
	"crypto/ed25519"
	"encoding/hex"
)

// RendezvousID is where the two legs of a session meet: unguessable, chosen by
// the daemon, and bound to both keys that may use it, so that a relay needs no
// database to know whose it is (§2).
type RendezvousID [16]byte

// NewRendezvousID derives the id from the key that registers the session and
// the key that joins it.
func NewRendezvousID(register, join ed25519.PublicKey) RendezvousID {
	sum := Hash("rid", register, join)
	return RendezvousID(sum[:16])
}

// String is the id in hex. A relay never logs it.
func (id RendezvousID) String() string { return hex.EncodeToString(id[:]) }
