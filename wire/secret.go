package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Secret is 32 bytes that no formatting verb, log handler or marshaller prints,
// wherever they stand; [Secret.Reveal] alone does. The zero Secret is 32 zeros.
type Secret struct {
	// A function, because fmt looks into unexported fields without asking Format,
	// and behind pointers too for a verb that does not fit: of this it prints an
	// address.
	reveal func() [32]byte
}

// NewSecret draws a secret.
func NewSecret(rand io.Reader) (Secret, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Secret{}, fmt.Errorf("drawing a secret: %w", err)
	}
	return SecretOf(b), nil
}

// SecretOf conceals bytes that came from elsewhere.
func SecretOf(b [32]byte) Secret { return Secret{reveal: func() [32]byte { return b }} }

// Reveal is the secret itself, for the code that computes with it.
func (s Secret) Reveal() []byte {
	var b [32]byte
	if s.reveal != nil {
		b = s.reveal()
	}
	return b[:]
}

const hidden = "(secret)"

var errMarshal = errors.New("a secret is not marshalled")

// Format hides the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret from log handlers.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses: who writes a secret reveals it, on purpose.
func (Secret) MarshalText() ([]byte, error) { return nil, errMarshal }

// SigningKey is an Ed25519 private key that prints as little as a [Secret]. The
// zero SigningKey is none.
type SigningKey struct{ reveal func() ed25519.PrivateKey }

// NewSigningKey draws a key.
func NewSigningKey(rand io.Reader) (SigningKey, error) {
	seed, err := NewSecret(rand)
	if err != nil {
		return SigningKey{}, fmt.Errorf("drawing a signing key: %w", err)
	}
	return SigningKeyOf(ed25519.NewKeyFromSeed(seed.Reveal())), nil
}

// SigningKeyOf conceals a key that came from elsewhere.
func SigningKeyOf(key ed25519.PrivateKey) SigningKey {
	return SigningKey{reveal: func() ed25519.PrivateKey { return key }}
}

// Reveal is the key itself, for the code that signs with it.
func (k SigningKey) Reveal() ed25519.PrivateKey { return k.reveal() }

// Public is the half that others may have.
func (k SigningKey) Public() ed25519.PublicKey { return k.reveal().Public().(ed25519.PublicKey) }

// Format hides the key, whatever the verb.
func (SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the key from log handlers.
func (SigningKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses.
func (SigningKey) MarshalText() ([]byte, error) { return nil, errMarshal }
