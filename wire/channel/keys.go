package channel

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"

	"openscope/wire"
)

// Keys is prkS, all that either end keeps of S (§2).
type Keys struct{ prk wire.Secret }

// NewKeys derives prkS of S, which a handle carries.
func NewKeys(s wire.Secret) *Keys {
	return &Keys{prk: wire.SecretOf([32]byte(extract([]byte("openscope/1 S"), s.Reveal())))}
}

// JoinKey signs a client's join to the relay (§3).
func (k *Keys) JoinKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(expand(k.prk.Reveal(), "relay join", nil))
}

func (k *Keys) mac1Key(th0 [32]byte) []byte { return expand(k.prk.Reveal(), "msg1 mac", th0[:]) }

// psk mixes what only a holder of S has with what only the recipient can open.
func (k *Keys) psk(ssR []byte, th1 [32]byte) []byte {
	return expand(extract(k.prk.Reveal(), ssR), "psk", th1[:])
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

// KeysOf are keys that came from another part of the daemon: prkS itself.
func KeysOf(prk [32]byte) *Keys { return &Keys{prk: wire.SecretOf(prk)} }

// Reveal is prkS, for the part of the daemon that shakes hands.
func (k *Keys) Reveal() []byte { return k.prk.Reveal() }
