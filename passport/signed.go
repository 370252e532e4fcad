package passport

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Passport is a grant for one recipient's key in one session, as the daemon
// signs it.
type Passport struct {
	Session [16]byte
	Daemon  [32]byte // fingerprint
	// Issuer and Recipient are names for people: the agent, and the alias.
	Issuer, Recipient  string
	Subject            ed25519.PublicKey
	Serial             uint32 // grows when the session is extended
	NotBefore, Expires time.Time
	Grant              Grant
}

// Signed is a passport as it crosses the network. Nothing in it may be believed
// before Verify has returned it as a *Passport.
type Signed []byte

// MaxSigned bounds a signed passport: it has to fit into one record.
const MaxSigned = 15_000

var (
	// ErrTooLarge: the grant does not fit into a passport.
	ErrTooLarge = errors.New("the passport is too large: share fewer verbs, or smaller sets of values")
	// ErrForged is wrapped by every refusal of a signed passport.
	ErrForged = errors.New("not a valid passport")
)

// label separates a passport's signature from all others of the identity key.
const label = "openscope/1 passport"

// version is that of the layout of passport/README.md §4.
const version = 1

// Sign encodes the passport canonically and signs it, if Verify would take it.
func Sign(key ed25519.PrivateKey, p Passport) (Signed, error) {
	w := toWire(p)
	body, err := encoder.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encoding a passport: %w", err)
	}
	if len(body)+ed25519.SignatureSize > MaxSigned || len(p.Grant.Verbs) > maxVerbs {
		return nil, ErrTooLarge
	}
	if _, err := fromWire(w); err != nil {
		return nil, fmt.Errorf("signing what nobody would accept: %w", err)
	}
	return append(Signed(ed25519.Sign(key, signedBytes(body))), body...), nil
}

// Verify checks the signature over the bytes as they came, then that they are
// the one canonical encoding of what they say, and only then returns it.
func Verify(s Signed, public ed25519.PublicKey) (*Passport, error) {
	if len(s) <= ed25519.SignatureSize || len(s) > MaxSigned || len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: a size of %d bytes", ErrForged, len(s))
	}
	signature, body := s[:ed25519.SignatureSize], s[ed25519.SignatureSize:]
	if !ed25519.Verify(public, signedBytes(body), signature) {
		return nil, fmt.Errorf("%w: the signature is wrong", ErrForged)
	}
	var w wirePassport
	if err := decoder.Unmarshal(body, &w); err != nil {
		return nil, fmt.Errorf("%w: it does not decode: %w", ErrForged, err)
	}
	again, err := encoder.Marshal(w)
	if err != nil || !bytes.Equal(again, body) {
		return nil, fmt.Errorf("%w: the encoding is not canonical", ErrForged)
	}
	return fromWire(w)
}

// CheckFor refuses a passport of another session or for another key.
func (p *Passport) CheckFor(session [16]byte, subject ed25519.PublicKey) error {
	if p.Session != session {
		return fmt.Errorf("%w: it is of another session", ErrForged)
	}
	if !p.Subject.Equal(subject) {
		return fmt.Errorf("%w: it is for another key", ErrForged)
	}
	return nil
}

// signedBytes is lp(label, body).
func signedBytes(body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(label)))
	b = append(b, label...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// The two modes cannot fail to be built: their options are constants.
var (
	encoder = must(cbor.CoreDetEncOptions().EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels: 8, MaxArrayElements: 256, MaxMapPairs: 64, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("passport: " + err.Error())
	}
	return v
}
