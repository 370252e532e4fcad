package wire

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo: what stands for
// a relay's identity where no public authority vouches for it (§3).
type Pin [32]byte

const pinPrefix = "sha256:"

// ParsePin reads "sha256:" and 64 hex digits.
func ParsePin(s string) (Pin, error) {
	digits, ok := strings.CutPrefix(strings.TrimSpace(s), pinPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(Pin{})) {
		return Pin{}, fmt.Errorf("%q is not a pin: %s and 64 hex digits", s, pinPrefix)
	}
	var p Pin
	if _, err := hex.Decode(p[:], []byte(digits)); err != nil {
		return Pin{}, fmt.Errorf("%q is not a pin: %w", s, err)
	}
	return p, nil
}

// PinOf is the pin of a certificate.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String is the form that ParsePin reads.
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }
