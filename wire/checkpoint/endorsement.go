package checkpoint

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"openscope/wire"
)

const (
	endorsementPrefix  = "osl1"
	endorsementVersion = 1
	endorsementSize    = 1 + 2*ed25519.PublicKeySize + ed25519.SignatureSize
	// maxEndorsement bounds its text.
	maxEndorsement = 512
	// keyName is what checkpoints call the key that signs them; which daemon's it
	// is, the endorsement says.
	keyName = "openscope-log"
)

// Endorsement is a daemon's word that a key signs the checkpoints of its log
// and nothing else. Made by [Endorse] or [ParseEndorsement], it is verified.
//
//	text of: version 1 (= 1) | pkD 32 | checkpoint key 32 | signature 64
type Endorsement struct {
	Daemon, Key ed25519.PublicKey
	signature   []byte
}

// Endorse signs the key's endorsement with the daemon's identity.
func Endorse(identity ed25519.PrivateKey, key ed25519.PublicKey) Endorsement {
	return Endorsement{
		Daemon: identity.Public().(ed25519.PublicKey), Key: key,
		signature: ed25519.Sign(identity, endorsedBytes(key)),
	}
}

func endorsedBytes(key ed25519.PublicKey) []byte {
	return wire.LP([]byte("openscope/1 checkpoint key"), key)
}

// Text is the endorsement as it stands beside the log and in reports.
func (e Endorsement) Text() string {
	payload := append([]byte{endorsementVersion}, e.Daemon...)
	payload = append(append(payload, e.Key...), e.signature...)
	return wire.EncodeText(endorsementPrefix, payload)
}

// ParseEndorsement reads and verifies an endorsement. Whose it is the caller
// compares.
func ParseEndorsement(text string) (Endorsement, error) {
	b, err := wire.DecodeText(endorsementPrefix, text, maxEndorsement)
	if err != nil {
		return Endorsement{}, fmt.Errorf("reading the endorsement of a checkpoint key: %w", err)
	}
	if len(b) != endorsementSize || b[0] != endorsementVersion {
		return Endorsement{}, errors.New("reading the endorsement of a checkpoint key: it is of another version")
	}
	e := Endorsement{Daemon: b[1:33], Key: b[33:65], signature: b[65:]}
	if !ed25519.Verify(e.Daemon, endorsedBytes(e.Key), e.signature) {
		return Endorsement{}, errors.New("reading the endorsement of a checkpoint key: its signature is not the daemon's")
	}
	return e, nil
}

// Verifier is for the checkpoints that the endorsed key signs.
func (e Endorsement) Verifier() (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(keyName, e.Key)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// Signer signs checkpoints with the endorsed key.
func (e Endorsement) Signer(key wire.SigningKey) (note.Signer, error) {
	v, err := e.Verifier()
	if err != nil {
		return nil, err
	}
	if !key.Public().Equal(e.Key) {
		return nil, errors.New("the endorsement is of another key")
	}
	return signer{v, key}, nil
}

// signer is a note.Signer whose key prints as little as any.
type signer struct {
	note.Verifier
	key wire.SigningKey
}

func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.key.Reveal(), text), nil }
