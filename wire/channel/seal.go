package channel

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"openscope/wire"
)

// The two suites of §1: one to a recipient's long-term key, one to the client's
// fresh hybrid key. There is nothing to negotiate.
var (
	recipientKEM   = hpke.KEM_X25519_HKDF_SHA256
	channelKEM     = hpke.KEM_XWING
	recipientSuite = hpke.NewSuite(recipientKEM, hpke.KDF_HKDF_SHA256, hpke.AEAD_ChaCha20Poly1305)
	channelSuite   = hpke.NewSuite(channelKEM, hpke.KDF_HKDF_SHA256, hpke.AEAD_ChaCha20Poly1305)
)

// Sizes of what HPKE puts on the wire.
const (
	encRSize   = 32
	xwingKey   = 1216
	xwingEnc   = 1120
	tagSize    = 16
	secretSize = 32
	sealedSize = secretSize + tagSize
	pskSize    = 32
	x25519Size = 32
)

// SealSecret seals S to a recipient for one handle: the header is bound to it
// (§4).
func SealSecret(rand io.Reader, to *ecdh.PublicKey, header []byte, s wire.Secret) (enc [32]byte, sealed [sealedSize]byte, err error) {
	key, err := recipientKEM.Scheme().UnmarshalBinaryPublicKey(to.Bytes())
	if err != nil {
		return enc, sealed, fmt.Errorf("sealing to a recipient: %w", err)
	}
	sender, err := recipientSuite.NewSender(key, sealInfo(header))
	if err != nil {
		return enc, sealed, fmt.Errorf("sealing to a recipient: %w", err)
	}
	encBytes, sealer, err := sender.Setup(rand)
	if err != nil {
		return enc, sealed, fmt.Errorf("sealing to a recipient: %w", err)
	}
	box, err := sealer.Seal(s.Reveal(), header)
	if err != nil {
		return enc, sealed, fmt.Errorf("sealing to a recipient: %w", err)
	}
	return [32]byte(encBytes), [sealedSize]byte(box), nil
}

// ErrNotForThisKey says that a handle was sealed to another recipient, or was
// edited.
var ErrNotForThisKey = errors.New("the handle is not for this key, or was edited")

// OpenSecret opens what SealSecret sealed.
func OpenSecret(key *ecdh.PrivateKey, header []byte, enc [32]byte, sealed [sealedSize]byte) (wire.Secret, error) {
	private, err := recipientPrivate(key)
	if err != nil {
		return wire.Secret{}, err
	}
	receiver, err := recipientSuite.NewReceiver(private, sealInfo(header))
	if err != nil {
		return wire.Secret{}, fmt.Errorf("opening a handle: %w", err)
	}
	opener, err := receiver.Setup(enc[:])
	if err != nil {
		return wire.Secret{}, ErrNotForThisKey
	}
	s, err := opener.Open(sealed[:], header)
	if err != nil || len(s) != secretSize {
		return wire.Secret{}, ErrNotForThisKey
	}
	return wire.SecretOf([secretSize]byte(s)), nil
}

func sealInfo(header []byte) []byte {
	return wire.LP([]byte("openscope/1 handle seal"), header)
}

func recipientPrivate(key *ecdh.PrivateKey) (kem.PrivateKey, error) {
	private, err := recipientKEM.Scheme().UnmarshalBinaryPrivateKey(key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("using the recipient's key: %w", err)
	}
	return private, nil
}

var errLowOrder = errors.New("a low-order X25519 point")

// checkX25519 refuses points of low order, which X-Wing as circl has it takes:
// with one, the classical half of the secret would be known to everybody.
func checkX25519(point []byte) error {
	public, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		return errLowOrder
	}
	// Any clamped scalar is a multiple of the cofactor and sends every point of
	// low order, and no other, to zero.
	scalar, err := ecdh.X25519().NewPrivateKey(probeScalar[:])
	if err != nil {
		return errLowOrder
	}
	if _, err := scalar.ECDH(public); err != nil {
		return errLowOrder
	}
	return nil
}

var probeScalar = [x25519Size]byte{0: 8, 31: 64}
