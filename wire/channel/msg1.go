package channel

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"openscope/wire"
)

// Version is the version byte of msg1 and msg2.
const Version = 1

const (
	typeMsg1 = 1
	typeMsg2 = 2
)

// Msg1Size is the size of msg1:
//
//	version 1 | type 1 | ek 1216 | commit 32 | mac1 32
const Msg1Size = 2 + xwingKey + 32 + 32

// Where the parts of msg1 begin.
const (
	ekAt     = 2
	commitAt = ekAt + xwingKey
	mac1At   = commitAt + 32
)

// newMsg1 writes msg1. The mac shows that its sender has S, before the daemon
// spends anything on it.
func newMsg1(k *Keys, t Transcript, ek []byte, nonce [32]byte) []byte {
	commit := commitTo(nonce)
	msg := make([]byte, 0, Msg1Size)
	msg = append(append(msg, Version, typeMsg1), ek...)
	msg = append(msg, commit[:]...)
	return append(msg, mac1(k, t, msg)...)
}

// checkMsg1 checks everything about msg1 that needs no public-key work, the mac
// in constant time.
func checkMsg1(k *Keys, t Transcript, msg []byte) error {
	if len(msg) != Msg1Size || msg[0] != Version || msg[1] != typeMsg1 {
		return errors.New("msg1 is malformed")
	}
	if subtle.ConstantTimeCompare(mac1(k, t, msg[:mac1At]), msg[mac1At:]) != 1 {
		return errors.New("msg1's mac is wrong")
	}
	return nil
}

func mac1(k *Keys, t Transcript, msg []byte) []byte {
	mac := hmac.New(sha256.New, k.mac1Key(t.th))
	mac.Write(wire.LP(t.th[:], msg[ekAt:commitAt], msg[commitAt:mac1At]))
	return mac.Sum(nil)
}

// Commitment is the client's commitment in msg1 to a nonce it will show in
// FINISHED.
func Commitment(msg1 []byte) ([32]byte, error) {
	if len(msg1) != Msg1Size {
		return [32]byte{}, errors.New("msg1 is malformed")
	}
	return [32]byte(msg1[commitAt:mac1At]), nil
}

func commitTo(nonce [32]byte) [32]byte { return wire.Hash("commit", nonce[:]) }

// ekOf is the client's fresh key, refused where its classical half is weak.
func ekOf(msg1 []byte) ([]byte, error) {
	ek := bytes.Clone(msg1[ekAt:commitAt])
	return ek, checkX25519(ek[xwingKey-x25519Size:])
}
