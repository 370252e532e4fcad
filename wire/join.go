package wire

import (
	"crypto/ed25519"
	"fmt"
)

// Join asks a relay for the other end of a session. Only who has the handle's
// secret has the join key.
//
//	version 1 | rid 16 | signature 64
type Join struct {
	RID       RendezvousID
	Signature []byte
}

const joinSize = 1 + 16 + ed25519.SignatureSize

// SignJoin is the proof for the connection with this exporter.
func SignJoin(key ed25519.PrivateKey, exporter [32]byte, rid RendezvousID) []byte {
	return ed25519.Sign(key, joinBytes(exporter, rid))
}

// Append appends the framed message.
func (j Join) Append(dst []byte) []byte {
	body := append([]byte{RelayVersion}, j.RID[:]...)
	return AppendMessage(dst, TypeJoin, append(body, j.Signature...))
}

// ParseJoin reads the body of a join.
func ParseJoin(body []byte) (Join, error) {
	if err := sized("a join", body, joinSize); err != nil {
		return Join{}, err
	}
	if body[0] != RelayVersion {
		return Join{}, fmt.Errorf("%w: version %d", ErrMessage, body[0])
	}
	return Join{RID: RendezvousID(body[1:17]), Signature: body[17:]}, nil
}

// Verify checks the proof against the join key of the registration.
func (j Join) Verify(key ed25519.PublicKey, exporter [32]byte) bool {
	return ed25519.Verify(key, joinBytes(exporter, j.RID), j.Signature)
}

func joinBytes(exporter [32]byte, rid RendezvousID) []byte {
	return LP([]byte("openscope/1 relay join"), exporter[:], rid[:])
}
