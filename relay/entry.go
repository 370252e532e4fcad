package relay

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"openscope/wire"
)

// TokenEntry is one token as a file, or a fleet's bucket, has it.
type TokenEntry struct {
	Name    string    `json:"name"`
	Public  string    `json:"public"` // base64
	Created time.Time `json:"created"`
	// Expires ends the token; nil is never.
	Expires *time.Time `json:"expires,omitempty"`
	TokenLimits
}

// The refusals of a change.
var (
	ErrTokenName   = errors.New("a token's name has 1 to 64 letters, digits, dots, dashes and underscores")
	ErrTokenExists = errors.New("there is a token of that name")
	ErrNoToken     = errors.New("there is no token of that name")
)

var tokenName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// NewTokenEntry draws a token and completes its entry.
func NewTokenEntry(e TokenEntry, rand io.Reader, now time.Time) (wire.Token, TokenEntry, error) {
	if !tokenName.MatchString(e.Name) {
		return wire.Token{}, e, ErrTokenName
	}
	token, err := wire.NewToken(rand)
	if err != nil {
		return wire.Token{}, e, err
	}
	e.Public = base64.StdEncoding.EncodeToString(token.Public())
	e.Created = now.UTC().Truncate(time.Second)
	return token, e, nil
}

// ID is what a hello names the token by.
func (e TokenEntry) ID() (wire.TokenID, error) {
	public, err := e.public()
	if err != nil {
		return wire.TokenID{}, err
	}
	return wire.TokenIDOf(public), nil
}

func (e TokenEntry) public() (ed25519.PublicKey, error) {
	public, err := base64.StdEncoding.DecodeString(e.Public)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q has no public key", e.Name)
	}
	if l := e.TokenLimits; min(l.Sessions, l.Connections, l.Joins) < 0 || min(l.Rate, l.Bytes) < 0 {
		return nil, fmt.Errorf("%q has a negative limit", e.Name)
	}
	return public, nil
}

// Deployment is what the entry says now; an expired one says nothing.
func (e TokenEntry) Deployment(now time.Time) (Deployment, bool) {
	public, err := e.public()
	if err != nil || e.Expires != nil && !now.Before(*e.Expires) {
		return Deployment{}, false
	}
	return Deployment{Public: public, Limits: e.TokenLimits}, true
}
