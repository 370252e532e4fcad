package channel

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"

	"openscope/wire"
)

// msg2 is the daemon's answer:
//
//	version 1 | type 1 | lp(encR, enc, ct2)
//
// encR is empty for bearer. Every part has one possible length.
type msg2 struct{ encR, enc, ct2 []byte }

const ct2Size = signedP2Size + tagSize

// Msg2Size is the size of msg2 in a mode: 1,346 bytes sealed, 1,314 bearer.
func Msg2Size(m Mode) int {
	size := 2 + 4 + 4 + xwingEnc + 4 + ct2Size
	if m == Sealed {
		size += encRSize
	}
	return size
}

func (m msg2) append(dst []byte) []byte {
	return wire.AppendLP(append(dst, Version, typeMsg2), m.encR, m.enc, m.ct2)
}

var errMsg2 = errors.New("msg2 is malformed")

func parseMsg2(mode Mode, b []byte) (m msg2, err error) {
	if len(b) != Msg2Size(mode) || b[0] != Version || b[1] != typeMsg2 {
		return m, errMsg2
	}
	wantR := 0
	if mode == Sealed {
		wantR = encRSize
	}
	rest := b[2:]
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&m.encR, wantR}, {&m.enc, xwingEnc}, {&m.ct2, ct2Size}} {
		if binary.BigEndian.Uint32(rest) != uint32(part.size) {
			return m, errMsg2
		}
		*part.to, rest = rest[4:4+part.size], rest[4+part.size:]
	}
	return m, checkX25519(m.enc[xwingEnc-x25519Size:])
}

// daemonSays is what ct2 holds: who the daemon says it is, and its signature.
type daemonSays struct {
	p2        []byte
	key       ed25519.PublicKey
	connID    [16]byte
	nonce     [32]byte
	signature []byte
}

// parseDaemonSays takes lp(P2, signature) apart; every length is fixed.
func parseDaemonSays(b []byte) (d daemonSays, err error) {
	if len(b) != signedP2Size {
		return d, errMsg2
	}
	d.p2 = b[4 : 4+p2Size]
	d.signature = b[4+p2Size+4:]
	d.key = ed25519.PublicKey(d.p2[4:36])
	d.connID = [16]byte(d.p2[40:56])
	d.nonce = [32]byte(d.p2[60:92])
	again := wire.LP(P2(d.key, d.connID, d.nonce), d.signature)
	if string(again) != string(b) {
		return d, errMsg2
	}
	return d, nil
}
