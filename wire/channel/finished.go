package channel

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"openscope/wire"
)

// Resume names a call of a lost connection and where its streams had come to
// (§8).
type Resume struct {
	ID             [16]byte
	Stdout, Stderr uint64
}

// MaxResume is how many calls FINISHED can name.
const MaxResume = 8

const resumeSize = 32

// Finished is the first record from the client, without its HMAC:
//
//	nC 32 | Ed25519 key 32 | replaces 16 | n 1 | n × (call id 16, stdout 8, stderr 8) | signature 64
type Finished struct {
	Nonce     [32]byte
	Key       ed25519.PublicKey
	Replaces  [16]byte
	Resume    []Resume
	Signature []byte
}

var errFinished = errors.New("FINISHED is malformed")

const (
	finishedHead = 32 + 32 + 16 + 1
	hmacSize     = 32
)

// unsigned is everything before the signature.
func (f Finished) unsigned() []byte {
	b := append(append([]byte(nil), f.Nonce[:]...), f.Key...)
	b = append(append(b, f.Replaces[:]...), byte(len(f.Resume)))
	for _, r := range f.Resume {
		b = append(b, r.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, r.Stdout)
		b = binary.BigEndian.AppendUint64(b, r.Stderr)
	}
	return b
}

// sign returns the body with the signature of key, which must be that of f.Key.
func (f Finished) sign(key ed25519.PrivateKey, t Transcript, rid wire.RendezvousID) []byte {
	body := f.unsigned()
	return append(body, ed25519.Sign(key, finishedBytes(t, rid, body))...)
}

// ParseFinished reads the body without its HMAC; it verifies nothing.
func ParseFinished(b []byte) (Finished, error) {
	if len(b) < finishedHead {
		return Finished{}, errFinished
	}
	f := Finished{Nonce: [32]byte(b[:32]), Key: append(ed25519.PublicKey(nil), b[32:64]...), Replaces: [16]byte(b[64:80])}
	n := int(b[80])
	if n > MaxResume || len(b) != finishedHead+n*resumeSize+ed25519.SignatureSize {
		return Finished{}, errFinished
	}
	rest := b[finishedHead:]
	for range n {
		f.Resume = append(f.Resume, Resume{
			ID:     [16]byte(rest[:16]),
			Stdout: binary.BigEndian.Uint64(rest[16:]),
			Stderr: binary.BigEndian.Uint64(rest[24:]),
		})
		rest = rest[resumeSize:]
	}
	f.Signature = append([]byte(nil), rest...)
	return f, nil
}

// Verify checks that FINISHED shows the nonce committed to in msg1 and is
// signed by the key it names, in this handshake at th2. Whose key that has to
// be is the caller's to ask.
func (f Finished) Verify(t Transcript, rid wire.RendezvousID, commit [32]byte) error {
	shown := commitTo(f.Nonce)
	if subtle.ConstantTimeCompare(shown[:], commit[:]) != 1 {
		return errors.New("FINISHED shows another nonce than was committed to")
	}
	if !ed25519.Verify(f.Key, finishedBytes(t, rid, f.unsigned()), f.Signature) {
		return errors.New("FINISHED's signature is wrong")
	}
	return nil
}

func finishedBytes(t Transcript, rid wire.RendezvousID, unsigned []byte) []byte {
	return wire.LP([]byte("openscope/1 client signature"), rid[:], t.th[:], unsigned)
}

func finishedMAC(s *secrets, t Transcript, body []byte) []byte {
	mac := hmac.New(sha256.New, s.finishedKey)
	mac.Write(wire.LP([]byte("client finished"), t.th[:], body))
	return mac.Sum(nil)
}

// readyMAC covers the whole of FINISHED, HMAC included.
func readyMAC(s *secrets, t Transcript, finished []byte) []byte {
	th3 := wire.Hash("th3", t.th[:], finished)
	mac := hmac.New(sha256.New, s.readyKey)
	mac.Write(wire.LP([]byte("daemon ready"), th3[:]))
	return mac.Sum(nil)
}
