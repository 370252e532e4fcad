package handle

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/edwards25519"

	"openscope/wire"
)

// ErrRecipientKey is wrapped by every refusal of a recipient's key.
var ErrRecipientKey = errors.New("not a valid recipient key")

const (
	publicPrefix  = "osk1"
	privatePrefix = "openscope-secret-key-1"
	maxKeyText    = 256
)

// RecipientKey is the public half of a recipient's identity: `osk1` and 111
// characters (§2).
type RecipientKey struct {
	X25519  *ecdh.PublicKey
	Ed25519 ed25519.PublicKey
}

// Text is the key as it is registered.
func (k RecipientKey) Text() string {
	payload := append([]byte{1}, k.X25519.Bytes()...)
	return wire.EncodeText(publicPrefix, append(payload, k.Ed25519...))
}

// ParseRecipientKey reads a public key and refuses weak ones: points of small
// order, and encodings that are not canonical.
func ParseRecipientKey(text string) (RecipientKey, error) {
	payload, err := wire.DecodeText(publicPrefix, text, maxKeyText)
	if err != nil {
		return RecipientKey{}, fmt.Errorf("%w: %w", ErrRecipientKey, err)
	}
	if len(payload) != 65 || payload[0] != 1 {
		return RecipientKey{}, fmt.Errorf("%w: it has another form", ErrRecipientKey)
	}
	if err := checkX25519(payload[1:33]); err != nil {
		return RecipientKey{}, err
	}
	if err := CheckEd25519(payload[33:]); err != nil {
		return RecipientKey{}, err
	}
	x, err := ecdh.X25519().NewPublicKey(payload[1:33])
	if err != nil {
		return RecipientKey{}, fmt.Errorf("%w: %w", ErrRecipientKey, err)
	}
	return RecipientKey{X25519: x, Ed25519: ed25519.PublicKey(payload[33:])}, nil
}

// checkX25519 refuses points of low order: any clamped scalar sends them, and
// no others, to zero.
func checkX25519(point []byte) error {
	public, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipientKey, err)
	}
	scalar, err := ecdh.X25519().NewPrivateKey(append([]byte{8}, make([]byte, 31)...))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipientKey, err)
	}
	if _, err := scalar.ECDH(public); err != nil {
		return fmt.Errorf("%w: its X25519 point is of low order", ErrRecipientKey)
	}
	return nil
}

// CheckEd25519 refuses keys of small order and encodings that are not
// canonical: a signature by one would prove nothing.
func CheckEd25519(public []byte) error {
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return fmt.Errorf("%w: its Ed25519 key is not a point", ErrRecipientKey)
	}
	if string(point.Bytes()) != string(public) {
		return fmt.Errorf("%w: its Ed25519 key is not canonical", ErrRecipientKey)
	}
	if new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: its Ed25519 key is of small order", ErrRecipientKey)
	}
	return nil
}

// RecipientIdentity is a recipient's private key: one seed, of which both key
// pairs are derived. It prints as nothing.
type RecipientIdentity struct{ seed wire.Secret }

// NewRecipientIdentity draws an identity.
func NewRecipientIdentity(rand io.Reader) (*RecipientIdentity, error) {
	seed, err := wire.NewSecret(rand)
	if err != nil {
		return nil, fmt.Errorf("drawing an identity: %w", err)
	}
	return &RecipientIdentity{seed: seed}, nil
}

// ParseRecipientIdentity reads the text of a private key.
func ParseRecipientIdentity(text string) (*RecipientIdentity, error) {
	seed, err := wire.DecodeText(privatePrefix, text, maxKeyText)
	if err != nil || len(seed) != 32 {
		// The error of the decoder is about a secret: it stays here.
		return nil, fmt.Errorf("%w: it is not a private key's text", ErrRecipientKey)
	}
	return &RecipientIdentity{seed: wire.SecretOf([32]byte(seed))}, nil
}

// Text is the secret itself, for its file.
func (id *RecipientIdentity) Text() string {
	return strings.ToUpper(wire.EncodeText(privatePrefix, id.seed.Reveal()))
}

// Public is the half to register.
func (id *RecipientIdentity) Public() RecipientKey {
	return RecipientKey{X25519: id.X25519().PublicKey(), Ed25519: id.Ed25519().Public().(ed25519.PublicKey)}
}

// X25519 opens what is sealed to this recipient.
func (id *RecipientIdentity) X25519() *ecdh.PrivateKey {
	key, err := ecdh.X25519().NewPrivateKey(id.derive("x25519"))
	if err != nil {
		panic("handle: " + err.Error()) // every 32 bytes are a private key
	}
	return key
}

// Ed25519 signs this recipient's requests.
func (id *RecipientIdentity) Ed25519() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(id.derive("ed25519"))
}

// derive is X(prkK, label) of §2.
func (id *RecipientIdentity) derive(label string) []byte {
	prk, err := hkdf.Extract(sha256.New, id.seed.Reveal(), []byte("openscope/1 recipient"))
	if err != nil {
		panic("handle: " + err.Error()) // SHA-256 is always allowed
	}
	key, err := hkdf.Expand(sha256.New, prk, string(wire.LP([]byte("openscope/1 "+label), nil)), 32)
	if err != nil {
		panic("handle: " + err.Error())
	}
	return key
}
