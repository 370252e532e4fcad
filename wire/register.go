package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"
)

// Register makes a session known to a relay. The rendezvous id certifies
// itself: it is derived from both keys, and the first one signs.
//
//	rid 16 | register key 32 | join key 32 | lifetime in seconds 4 | signature 64
type Register struct {
	RID         RendezvousID
	RegisterKey ed25519.PublicKey
	JoinKey     ed25519.PublicKey
	// Lifetime is what is left to the session's hard limit, in whole seconds.
	Lifetime  time.Duration
	Signature []byte
}

const registerSize = 16 + 32 + 32 + 4 + ed25519.SignatureSize

// SignRegister returns r signed for the connection with this exporter.
func SignRegister(key ed25519.PrivateKey, exporter [32]byte, r Register) Register {
	r.Signature = ed25519.Sign(key, r.signedBytes(exporter))
	return r
}

// Append appends the framed message.
func (r Register) Append(dst []byte) []byte {
	body := append([]byte(nil), r.RID[:]...)
	body = append(append(body, r.RegisterKey...), r.JoinKey...)
	body = binary.BigEndian.AppendUint32(body, uint32(r.Lifetime/time.Second))
	return AppendMessage(dst, TypeRegister, append(body, r.Signature...))
}

// ParseRegister reads the body of a registration; it verifies nothing.
func ParseRegister(body []byte) (Register, error) {
	if err := sized("a registration", body, registerSize); err != nil {
		return Register{}, err
	}
	return Register{
		RID:         RendezvousID(body[:16]),
		RegisterKey: ed25519.PublicKey(body[16:48]),
		JoinKey:     ed25519.PublicKey(body[48:80]),
		Lifetime:    time.Duration(binary.BigEndian.Uint32(body[80:84])) * time.Second,
		Signature:   body[84:],
	}, nil
}

// Verify checks that the id belongs to the keys and that the register key
// signed, for the connection with this exporter.
func (r Register) Verify(exporter [32]byte) error {
	if NewRendezvousID(r.RegisterKey, r.JoinKey) != r.RID {
		return fmt.Errorf("%w: the rendezvous id is not that of the keys", ErrMessage)
	}
	if !ed25519.Verify(r.RegisterKey, r.signedBytes(exporter), r.Signature) {
		return fmt.Errorf("%w: the registration's signature is wrong", ErrMessage)
	}
	return nil
}

func (r Register) signedBytes(exporter [32]byte) []byte {
	lifetime := binary.BigEndian.AppendUint32(nil, uint32(r.Lifetime/time.Second))
	return LP([]byte("openscope/1 relay register"), exporter[:], r.RID[:], r.RegisterKey, r.JoinKey, lifetime)
}

// RegisterAck answers a registration.
//
//	rid 16 | status 1
type RegisterAck struct {
	RID    RendezvousID
	Status RegisterStatus
}

// RegisterStatus is how a registration was answered.
type RegisterStatus uint8

// A registration is taken, or refused: malformed or not signed, or beyond what
// the token may hold.
const (
	Registered RegisterStatus = iota
	RegisterRefused
	RegisterFull
)

// Append appends the framed message.
func (a RegisterAck) Append(dst []byte) []byte {
	return AppendMessage(dst, TypeRegisterAck, append(append([]byte(nil), a.RID[:]...), byte(a.Status)))
}

// ParseRegisterAck reads the body of the answer.
func ParseRegisterAck(body []byte) (RegisterAck, error) {
	if err := sized("an answer to a registration", body, 17); err != nil {
		return RegisterAck{}, err
	}
	status := RegisterStatus(body[16])
	if status > RegisterFull {
		return RegisterAck{}, fmt.Errorf("%w: a registration answered with %d", ErrMessage, status)
	}
	return RegisterAck{RID: RendezvousID(body[:16]), Status: status}, nil
}
