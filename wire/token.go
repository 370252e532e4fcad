package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// TokenID names a deployment token to the relay that issued it.
type TokenID [16]byte

// Token is a deployment token: the Ed25519 seed with which a daemon proves to a
// relay that it may use it (§2). The relay keeps the public half only. No
// formatting verb, log handler or marshaller prints it; [Token.Text] does. The
// zero Token is nobody's.
type Token struct{ seed Secret }

// TokenPrefix begins the text of a token.
const TokenPrefix = "ost1"

const maxTokenText = 128

// NewToken draws a token.
func NewToken(rand io.Reader) (Token, error) {
	seed, err := NewSecret(rand)
	if err != nil {
		return Token{}, fmt.Errorf("drawing a token: %w", err)
	}
	return Token{seed: seed}, nil
}

// ParseToken reads the text of a token.
func ParseToken(text string) (Token, error) {
	seed, err := DecodeText(TokenPrefix, text, maxTokenText)
	if err != nil {
		return Token{}, fmt.Errorf("reading a token: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return Token{}, fmt.Errorf("reading a token: %w: %d bytes", ErrText, len(seed))
	}
	return Token{seed: SecretOf([ed25519.SeedSize]byte(seed))}, nil
}

// Text is the secret itself, for the one who is to have it.
func (t Token) Text() string { return EncodeText(TokenPrefix, t.seed.Reveal()) }

// Public is the half the relay keeps.
func (t Token) Public() ed25519.PublicKey {
	return t.key().Public().(ed25519.PublicKey)
}

func (t Token) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.seed.Reveal()) }

// ID is derived from the public half.
func (t Token) ID() TokenID { return TokenIDOf(t.Public()) }

// TokenIDOf is the id of the token with this public half.
func TokenIDOf(public ed25519.PublicKey) TokenID {
	sum := Hash("token id", public)
	return TokenID(sum[:16])
}

// SignHello proves possession of the token on one TLS connection (§3).
func (t Token) SignHello(exporter [32]byte) []byte {
	return ed25519.Sign(t.key(), helloBytes(exporter, t.ID()))
}

const hiddenToken = "(a deployment token)"

// Format prints no part of the token, whatever the verb.
func (Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenToken) }

// LogValue hides the token from log handlers.
func (Token) LogValue() slog.Value { return slog.StringValue(hiddenToken) }

// MarshalText refuses: a token is written by Text alone, on purpose.
func (Token) MarshalText() ([]byte, error) {
	return nil, errors.New("a deployment token is not marshalled")
}
