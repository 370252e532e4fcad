package channel

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"openscope/wire"
)

// Secret is S: what a handle carries, and all of a session is derived from
// (§2). It prints as nothing.
type Secret [32]byte

// NewSecret draws the secret of a new session.
func NewSecret(rand io.Reader) (Secret, error) {
	var s Secret
	if _, err := io.ReadFull(rand, s[:]); err != nil {
		return Secret{}, fmt.Errorf("drawing a session secret: %w", err)
	}
	return s, nil
}

const hidden = "(secret)"

var errMarshal = errors.New("a secret is not marshalled")

// Format hides the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret from log handlers.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses.
func (Secret) MarshalText() ([]byte, error) { return nil, errMarshal }

// Keys is prkS, all that either end keeps of S.
type Keys struct{ prk []byte }

// Keys derives prkS.
func (s Secret) Keys() *Keys {
	return &Keys{prk: extract([]byte("openscope/1 S"), s[:])}
}

// Format hides the keys, whatever the verb.
func (*Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the keys from log handlers.
func (*Keys) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses.
func (*Keys) MarshalText() ([]byte, error) { return nil, errMarshal }

// JoinKey signs a client's join to the relay (§3).
func (k *Keys) JoinKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(expand(k.prk, "relay join", nil))
}

func (k *Keys) mac1Key(th0 [32]byte) []byte { return expand(k.prk, "msg1 mac", th0[:]) }

// psk mixes what only a holder of S has with what only the recipient can open.
func (k *Keys) psk(ssR []byte, th1 [32]byte) []byte {
	return expand(extract(k.prk, ssR), "psk", th1[:])
}

// expand is X of §1, always 32 bytes.
func expand(prk []byte, label string, context []byte) []byte {
	info := wire.LP([]byte("openscope/1 "+label), context)
	key, err := hkdf.Expand(sha256.New, prk, string(info), 32)
	if err != nil {
		panic("channel: expanding a key: " + err.Error()) // only for more than 255 blocks
	}
	return key
}

func extract(salt, secret []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		panic("channel: extracting a key: " + err.Error()) // SHA-256 is always allowed
	}
	return prk
}

// Fingerprint is how a daemon's identity key is known to people (§2).
func Fingerprint(public ed25519.PublicKey) [32]byte {
	return wire.Hash("daemon fingerprint", public)
}
