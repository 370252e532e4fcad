package channel

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"openscope/bench/vectors"
)

// addClientCase writes down a daemon that a client meets, and what comes of it.
func (f *fixed) addClientCase(t *testing.T, file *vectors.File, class, name string, lie daemonLies) {
	t.Helper()
	in := f.values("client")
	in["random"], in["from_daemon"] = vectors.Hex(drawn(new(counting), 64)), vectors.Hex(f.daemonSays(t, lie))
	addHandshake(t, file, class, name, in)
}

// addDaemonCase writes down a client that a daemon meets.
func (f *fixed) addDaemonCase(t *testing.T, file *vectors.File, class, name string, lie clientLies) {
	t.Helper()
	in := f.values("daemon")
	in["random"], in["from_client"] = vectors.Hex(drawn(&counting{next: 0x80}, 96)), vectors.Hex(f.clientSays(t, lie))
	addHandshake(t, file, class, name, in)
}

func addHandshake(t *testing.T, file *vectors.File, class, name string, in vectors.Values) {
	t.Helper()
	c := vectors.Case{Name: name, In: in, Error: class}
	if class == "" {
		out, err := judgeHandshake(t, in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Out = out
	}
	file.Cases = append(file.Cases, c)
}

// lowOrderPoints are X25519 points that every private key sends to zero: those
// of RFC 7748's curve and twist that the other cases do not have.
var lowOrderPoints = map[string]string{
	"of order 8":        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"of order 8, too":   "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"of p":              "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"of p + 1":          "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"of zero, its sign": "0000000000000000000000000000000000000000000000000000000000000080",
}

func lowOrderPoint(t *testing.T, name string) []byte {
	t.Helper()
	point, err := hex.DecodeString(lowOrderPoints[name])
	if err != nil {
		t.Fatal(err)
	}
	return point
}

var lowOrderNames = []string{"of order 8", "of order 8, too", "of p", "of p + 1", "of zero, its sign"}

// set writes bytes at a place.
func set(at int, value ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], value); return b }
}

// again is a signature's second form: S and the order of the base point, which
// the same equation holds for.
func again(signature []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	s = new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(s)
	return append(bytes.Clone(signature[:32]), s...)
}

// moreClientCases are daemons that differ from an honest one in one place
// further each: every field that is left.
func (f *fixed) moreClientCases(t *testing.T, name string, file *vectors.File) {
	add := func(class, what string, lie daemonLies) { f.addClientCase(t, file, class, name+" client, "+what, lie) }
	size := Msg2Size(f.mode)
	encAt := size - ct2Size - 4 - xwingEnc
	ct2At := size - ct2Size
	ready := func(edit func(body []byte) []byte) daemonLies {
		return daemonLies{ready: func(_ *Type, b *[]byte, _ func([]byte) []byte) { *b = edit(*b) }}
	}
	day := 24 * time.Hour.Milliseconds()
	left := func(ms int64) daemonLies {
		return ready(set(hmacSize+8, 0, 0, 0, 0, byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms)))
	}
	add("", "no time left", left(0))
	add("", "a day left", left(day))
	add("", "another challenge", ready(set(hmacSize, fill(0xcb, 8)...)))
	add("READY malformed", "a day and a millisecond left", left(day+1))
	add("READY mac", "the last bit of READY's mac", ready(flipped(hmacSize-1)))
	add("READY malformed", "READY of nothing", ready(cut(0)))

	for _, version := range []byte{0, 0xff} {
		add("msg2 malformed", fmt.Sprintf("version %d", version), daemonLies{after: set(0, version)})
	}
	add("msg2 malformed", "type 0", daemonLies{after: set(1, 0)})
	add("msg2 malformed", "type 3", daemonLies{after: set(1, 3)})
	add("msg2 malformed", "encR of 2^31 bytes more", daemonLies{after: set(2, 0x80)})
	add("msg2 malformed", "enc of 2^31 bytes more", daemonLies{after: set(encAt-4, 0x80)})
	add("msg2 malformed", "ct2 of 2^31 bytes more", daemonLies{after: set(ct2At-4, 0x80)})
	for _, which := range lowOrderNames {
		add("low order", "enc with an X25519 part "+which, daemonLies{after: set(encAt+xwingEnc-x25519Size, lowOrderPoint(t, which)...)})
	}

	// Inside of ct2: P2 with its length first, and the signature.
	const keyAt, connAt, nonceAt, sigAt = 4 + 4, 4 + 4 + 32 + 4, 4 + 4 + 32 + 4 + 16 + 4, 4 + p2Size + 4
	add("fingerprint", "a bit of the daemon's key", daemonLies{plain: flipped(keyAt)})
	add("daemon signature", "another conn_id than was signed", daemonLies{plain: flipped(connAt)})
	add("daemon signature", "another nD than was signed", daemonLies{plain: flipped(nonceAt)})
	add("daemon signature", "a bit of the signature", daemonLies{plain: flipped(sigAt)})
	add("daemon signature", "the signature's second form", daemonLies{plain: func(b []byte) []byte { return append(b[:sigAt:sigAt], again(b[sigAt:])...) }})
	add("daemon signature", "a signature of zeros", daemonLies{plain: set(sigAt, make([]byte, ed25519.SignatureSize)...)})
	add("msg2 malformed", "another length of conn_id inside", daemonLies{plain: flipped(connAt - 1)})
	add("msg2 malformed", "another length of nD inside", daemonLies{plain: flipped(nonceAt - 1)})
	add("msg2 malformed", "another length of the signature inside", daemonLies{plain: flipped(sigAt - 1)})

	add("cut", "one byte of msg2", daemonLies{after: cut(1)})
	add("cut", "msg2 up to enc", daemonLies{after: cut(encAt)})
	add("cut", "msg2 and nothing after it", daemonLies{after: cut(size)})
	add("cut", "half a length after msg2", daemonLies{after: cut(size + 1)})
	for _, kind := range []Type{0, TypeOut, TypeEnd, TypeClose, 14} {
		add("record order", fmt.Sprintf("type %d in READY's place", kind), daemonLies{ready: func(k *Type, _ *[]byte, _ func([]byte) []byte) { *k = kind }})
	}
}

// moreDaemonCases are clients that differ from an honest one in one place
// further each.
func (f *fixed) moreDaemonCases(t *testing.T, name string, file *vectors.File) {
	add := func(class, what string, lie clientLies) { f.addDaemonCase(t, file, class, name+" daemon, "+what, lie) }
	for n := 1; n <= MaxResume; n += 7 {
		add("", fmt.Sprintf("a client that asks for %d calls", n), clientLies{resume: make([]Resume, n)})
	}
	add("", "a client that replaces a connection", clientLies{replaces: [16]byte(fill(0xff, 16))})

	for _, version := range []byte{0, 0xff} {
		add("msg1 malformed", fmt.Sprintf("version %d", version), clientLies{msg1: set(0, version)})
	}
	add("msg1 malformed", "type 0", clientLies{msg1: set(1, 0)})
	add("msg1 malformed", "type 3", clientLies{msg1: set(1, 3)})
	add("msg1 mac", "a bit of ek's X25519 part", clientLies{msg1: flipped(commitAt - 1)})
	add("msg1 mac", "a mac of zeros", clientLies{msg1: set(mac1At, make([]byte, 32)...)})
	add("msg1 mac", "the first bit of the mac", clientLies{msg1: flipped(mac1At)})
	for _, which := range lowOrderNames {
		add("low order", "ek with an X25519 part "+which, clientLies{ek: func(ek []byte) { copy(ek[xwingKey-x25519Size:], lowOrderPoint(t, which)) }})
	}
	add("cut", "one byte of msg1", clientLies{msg1: cut(1)})
	add("cut", "msg1 up to the commitment", clientLies{msg1: cut(commitAt)})
	add("cut", "half a length after msg1", clientLies{after: cut(Msg1Size + 1)})
	add("cut", "FINISHED's record a byte short", clientLies{after: func(b []byte) []byte { return b[:len(b)-1] }})
	for _, kind := range []Type{TypeCancel, TypeWindow, TypePing, TypeClose, 14} {
		add("record order", fmt.Sprintf("type %d in FINISHED's place", kind), clientLies{kind: kind})
	}

	said := func(edit func(said []byte) []byte) clientLies { // under a right HMAC
		return clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
			b := edit(f.finished(conn, nonce, Finished{}).said)
			return append(b, finishedMAC(conn.keys, conn.transcript, b)...)
		}}
	}
	const sigAt = finishedHead
	add("FINISHED mac", "an HMAC of zeros", clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
		return append(f.finished(conn, nonce, Finished{}).said, make([]byte, hmacSize)...)
	}})
	add("commitment", "nC of zeros", said(set(0, make([]byte, 32)...)))
	add("FINISHED signature", "a bit of the key", said(flipped(32)))
	add("FINISHED signature", "a signature of zeros", said(set(sigAt, make([]byte, ed25519.SignatureSize)...)))
	add("FINISHED signature", "the signature's second form", said(func(b []byte) []byte { return append(b[:sigAt:sigAt], again(b[sigAt:])...) }))
	add("FINISHED malformed", "255 calls announced", said(set(80, 0xff)))
	add("FINISHED malformed", "FINISHED of nothing", said(cut(0)))
	// With a key of order 1 anybody can sign: S is R's scalar, zero.
	add("FINISHED key", "a key that anybody can sign for", said(func(b []byte) []byte {
		one := append([]byte{1}, make([]byte, 31)...)
		copy(b[32:], one)
		copy(b[sigAt:], append(one, make([]byte, 32)...))
		return b
	}))
}
