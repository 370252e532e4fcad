package channel

import (
	"crypto/cipher"

	"github.com/cloudflare/circl/hpke"
	"golang.org/x/crypto/chacha20poly1305"

	"openscope/wire"
)

// secrets is everything derived from a handshake's master secret (§5).
type secrets struct {
	finishedKey, readyKey []byte
	toDaemon, toClient    recordKey
	words                 []byte
}

// recordKey is one direction's.
type recordKey struct{ key, iv []byte }

func (k recordKey) aead() cipher.AEAD {
	aead, err := chacha20poly1305.New(k.key)
	if err != nil {
		panic("channel: " + err.Error()) // the key has 32 bytes
	}
	clear(k.key)
	return aead
}

// exporter is the part of an HPKE context that both ends have.
type exporter interface {
	Export(context []byte, length uint) []byte
}

var (
	_ exporter = hpke.Sealer(nil)
	_ exporter = hpke.Opener(nil)
)

// newSecrets derives them and erases the master. Erasing is best effort: the
// runtime may have copied what it held.
func newSecrets(ctx exporter, t Transcript) *secrets {
	master := ctx.Export(wire.LP([]byte("openscope/1 master"), t.th[:]), 32)
	defer clear(master)
	derive := func(label string) []byte { return expand(master, label, nil) }
	return &secrets{
		finishedKey: derive("fin c"),
		readyKey:    derive("fin d"),
		toDaemon:    recordKey{key: derive("key c2d"), iv: derive("iv c2d")[:chacha20poly1305.NonceSize]},
		toClient:    recordKey{key: derive("key d2c"), iv: derive("iv d2c")[:chacha20poly1305.NonceSize]},
		words:       derive("sas"),
	}
}

// sessionWords is the secret behind the four words, bound to both nonces (§10).
func (s *secrets) sessionWords(nC, nD [32]byte, t Transcript) []byte {
	return expand(s.words, "words", wire.LP(nC[:], nD[:], t.th[:]))
}

// forget erases what only the handshake needed.
func (s *secrets) forget() {
	clear(s.finishedKey)
	clear(s.readyKey)
	clear(s.words)
}
