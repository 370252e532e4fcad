package channel

import (
	"crypto/ed25519"

	"openscope/wire"
)

// Mode is how S reached the client.
type Mode uint8

// A sealed session is for one registered recipient; a bearer session for who
// first has the handle.
const (
	Sealed Mode = 0
	Bearer Mode = 1
)

// Transcript is the running hash of a handshake (§5). Both ends compute it, and
// the daemon's core on its own, with these methods and nothing else. It is a
// value: every step returns the next.
type Transcript struct{ th [32]byte }

// NewTranscript is th0. The recipient is its X25519 key, or nil for bearer.
func NewTranscript(mode Mode, handleHash [32]byte, recipient []byte, rid wire.RendezvousID) Transcript {
	return Transcript{th: wire.Hash("th0", []byte{byte(mode)}, handleHash[:], recipient, rid[:])}
}

// WithMsg1 is th1.
func (t Transcript) WithMsg1(msg1 []byte) Transcript {
	return Transcript{th: wire.Hash("th1", t.th[:], msg1)}
}

// WithProof is th1b; encR is nil for bearer.
func (t Transcript) WithProof(encR []byte) Transcript {
	return Transcript{th: wire.Hash("th1b", t.th[:], encR)}
}

// DaemonSignedBytes is what the identity key signs, at th1b.
func (t Transcript) DaemonSignedBytes(enc, p2 []byte) []byte {
	digest := wire.Hash("sig", t.th[:], enc, p2)
	return wire.LP([]byte("openscope/1 daemon signature"), digest[:])
}

// WithMsg2 is th2.
func (t Transcript) WithMsg2(enc, ct2 []byte) Transcript {
	return Transcript{th: wire.Hash("th2", t.th[:], enc, ct2)}
}

// TH2 is the hash once the transcript has come to th2.
func (t Transcript) TH2() [32]byte { return t.th }

// P2 is the plaintext of msg2 before its signature: lp(pkD, conn_id, nD).
func P2(public ed25519.PublicKey, connID [16]byte, nonce [32]byte) []byte {
	return wire.LP(public, connID[:], nonce[:])
}

// p2Size is the size of P2, and signedP2Size of lp(P2, signature).
const (
	p2Size       = 4 + 32 + 4 + 16 + 4 + 32
	signedP2Size = 4 + p2Size + 4 + ed25519.SignatureSize
)
