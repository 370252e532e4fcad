package channel

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/wire"
)

const root = "../.."

// fill is one byte, n times.
func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// counting is an endless source that is the same in every run.
type counting struct{ next byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.next++
		p[i] = c.next
	}
	return len(p), nil
}

// fixed is a session with all that is random in it fixed.
type fixed struct {
	mode      Mode
	rid       wire.RendezvousID
	hash      [32]byte
	secret    wire.Secret
	recipient *ecdh.PrivateKey
	signer    ed25519.PrivateKey
	daemon    ed25519.PrivateKey
	connID    [16]byte
	nonce     [32]byte
	accept    Acceptance
}

func newFixed(mode Mode) *fixed {
	key, err := ecdh.X25519().NewPrivateKey(fill(0x7a, 32))
	if err != nil {
		panic(err)
	}
	return &fixed{
		mode: mode, rid: wire.RendezvousID(fill(0x1d, 16)), hash: [32]byte(fill(0x44, 32)),
		secret: wire.SecretOf([32]byte(fill(0x5e, 32))), recipient: key,
		signer: ed25519.NewKeyFromSeed(fill(0x99, 32)), daemon: ed25519.NewKeyFromSeed(fill(0xda, 32)),
		connID: [16]byte(fill(0xc0, 16)), nonce: [32]byte(fill(0xd0, 32)),
		accept: Acceptance{Challenge: [8]byte(fill(0xca, 8)), Remaining: 1_799_500 * time.Millisecond},
	}
}

func (f *fixed) public() ed25519.PublicKey { return f.daemon.Public().(ed25519.PublicKey) }

func (f *fixed) client() ClientConfig {
	c := ClientConfig{
		Mode: f.mode, RID: f.rid, HandleHash: f.hash, Fingerprint: Fingerprint(f.public()),
		Keys: NewKeys(f.secret), Signer: wire.SigningKeyOf(f.signer), Rand: new(counting),
	}
	if f.mode == Sealed {
		c.Recipient = func() *ecdh.PrivateKey { return f.recipient }
	}
	return c
}

func (f *fixed) server() DaemonConfig {
	c := DaemonConfig{
		Mode: f.mode, RID: f.rid, HandleHash: f.hash, Keys: NewKeys(f.secret),
		Authority: f, Guard: NewGuard(time.Now), Rand: &counting{next: 0x80},
	}
	if f.mode == Sealed {
		c.Recipient = f.recipient.PublicKey()
	}
	return c
}

// Answer and Accept make it the authority too, which believes nothing.
func (f *fixed) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (Answer, error) {
	p2 := P2(f.public(), f.connID, f.nonce)
	signed := f.th1b(rid, msg1, encR).DaemonSignedBytes(enc, p2)
	return Answer{ConnID: f.connID, P2: p2, Signature: ed25519.Sign(f.daemon, signed)}, nil
}

func (f *fixed) th1b(rid wire.RendezvousID, msg1, encR []byte) Transcript {
	return f.th0(rid).WithMsg1(msg1).WithProof(encR)
}

func (f *fixed) th0(rid wire.RendezvousID) Transcript {
	var recipient []byte
	if f.mode == Sealed {
		recipient = f.recipient.PublicKey().Bytes()
	}
	return NewTranscript(f.mode, f.hash, recipient, rid)
}

var errOtherKey = errors.New("FINISHED is by another key than the session is for")

func (f *fixed) Accept(context.Context, [16]byte, []byte, []byte) (Acceptance, error) {
	return f.accept, nil // judging is the subject of vectorAuthority
}

// vectorAuthority judges FINISHED, over what the daemon's side passed it.
type vectorAuthority struct {
	*fixed
	commitment [32]byte
	transcript Transcript
	enc        []byte
}

func (a *vectorAuthority) Answer(ctx context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (Answer, error) {
	commitment, err := Commitment(msg1)
	if err != nil {
		return Answer{}, err
	}
	a.commitment, a.transcript, a.enc = commitment, a.th1b(rid, msg1, encR), bytes.Clone(enc)
	return a.fixed.Answer(ctx, rid, msg1, encR, enc)
}

func (a *vectorAuthority) Accept(_ context.Context, _ [16]byte, ct2, body []byte) (Acceptance, error) {
	f, err := ParseFinished(body)
	if err != nil {
		return Acceptance{}, err
	}
	if err := f.Verify(a.transcript.WithMsg2(a.enc, ct2), a.rid, a.commitment); err != nil {
		return Acceptance{}, err
	}
	if !f.Key.Equal(a.signer.Public()) {
		return Acceptance{}, errOtherKey
	}
	return a.accept, nil
}

// daemonLies is what a daemon does differently from an honest one.
type daemonLies struct {
	signer ed25519.PrivateKey          // signs instead of the identity key
	shown  ed25519.PublicKey           // is shown instead of the identity key
	signed func(Transcript) Transcript // what is signed instead of th1b
	plain  func([]byte) []byte         // what ct2 holds
	keys   *Keys                       // of another S
	rid    *wire.RendezvousID          // as PSK id
	ready  func(t *Type, body *[]byte, mac func(finished []byte) []byte)
	after  func([]byte) []byte // what becomes of the bytes
}

// daemonSays is msg2 and READY, as answers to the fixed client.
func (f *fixed) daemonSays(t testing.TB, lie daemonLies) []byte {
	t.Helper()
	c := f.client()
	begun, err := c.begin(f.th0(f.rid))
	if err != nil {
		t.Fatal(err)
	}
	raw, conn := f.msg2(t, begun.msg1, lie)
	body := f.finished(conn, begun.nonce, Finished{}).body
	kind, mac := TypeReady, func(finished []byte) []byte { return readyMAC(conn.keys, conn.transcript, finished) }
	ready := newReady(mac(body), f.accept)
	if lie.ready != nil {
		lie.ready(&kind, &ready, mac)
	}
	if err := conn.Write(kind, ready); err != nil {
		t.Fatal(err)
	}
	said := append(raw, conn.leg.(*memoryLeg).written.Bytes()...)
	if lie.after != nil {
		said = lie.after(said)
	}
	return said
}

// msg2 answers msg1; the connection writes into memory.
func (f *fixed) msg2(t testing.TB, msg1 []byte, lie daemonLies) ([]byte, *Conn) {
	t.Helper()
	cfg := f.server()
	if lie.keys != nil {
		cfg.Keys = lie.keys
	}
	if lie.rid != nil {
		cfg.RID = *lie.rid
	}
	th1 := f.th0(f.rid).WithMsg1(msg1)
	encR, ssR, err := cfg.proveRecipient(th1)
	if err != nil {
		t.Fatal(err)
	}
	th1b := th1.WithProof(encR)
	enc, sealer, err := cfg.encapsulate(msg1[ekAt:commitAt], cfg.Keys.psk(ssR, th1.th), th1b)
	if err != nil {
		t.Fatal(err)
	}
	shown, signer, signed := f.public(), f.daemon, th1b
	if lie.shown != nil {
		shown = lie.shown
	}
	if lie.signer != nil {
		signer = lie.signer
	}
	if lie.signed != nil {
		signed = lie.signed(th1b)
	}
	p2 := P2(shown, f.connID, f.nonce)
	plain := wire.LP(p2, ed25519.Sign(signer, signed.DaemonSignedBytes(enc, p2)))
	if lie.plain != nil {
		plain = lie.plain(plain)
	}
	ct2, err := sealer.Seal(plain, th1b.th[:])
	if err != nil {
		t.Fatal(err)
	}
	th2 := th1b.WithMsg2(enc, ct2)
	conn := newConn(new(memoryLeg), daemonRole, th2, newSecrets(sealer, th2))
	return msg2{encR: encR, enc: enc, ct2: ct2}.append(nil), conn
}

// finishedSaid is FINISHED with its HMAC, before it is sealed.
type finishedSaid struct{ said, body []byte }

func (f *fixed) finished(conn *Conn, nonce [32]byte, with Finished) finishedSaid {
	with.Nonce, with.Key = nonce, f.signer.Public().(ed25519.PublicKey)
	said := with.sign(f.signer, conn.transcript, f.rid)
	return finishedSaid{said, append(bytes.Clone(said), finishedMAC(conn.keys, conn.transcript, said)...)}
}

// clientLies is what a client does differently from an honest one.
type clientLies struct {
	keys     *Keys               // of another S
	ek       func([]byte)        // edits ek before it is maced
	msg1     func([]byte) []byte // edits msg1 after
	resume   []Resume
	replaces [16]byte
	signer   ed25519.PrivateKey // signs FINISHED, and is named by it
	kind     Type
	finished func(conn *Conn, nonce [32]byte) []byte // the body, with HMAC
	after    func([]byte) []byte
}

// clientSays is msg1 and FINISHED, to the fixed daemon.
func (f *fixed) clientSays(t testing.TB, lie clientLies) []byte {
	t.Helper()
	cfg := f.client()
	if lie.keys != nil {
		cfg.Keys = lie.keys
	}
	th0 := f.th0(f.rid)
	begun, err := cfg.begin(th0)
	if err != nil {
		t.Fatal(err)
	}
	msg1 := begun.msg1
	if lie.ek != nil {
		ek := bytes.Clone(msg1[ekAt:commitAt])
		lie.ek(ek)
		msg1 = newMsg1(cfg.Keys, th0, ek, begun.nonce)
	}
	if lie.msg1 != nil {
		msg1 = lie.msg1(bytes.Clone(msg1))
	}
	if lie.ek != nil || lie.msg1 != nil || lie.keys != nil {
		return msg1 // no further
	}
	raw, _ := f.msg2(t, msg1, daemonLies{})
	m, err := parseMsg2(f.mode, raw)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := cfg.verify(new(memoryLeg), th0.WithMsg1(msg1), begun, m)
	if err != nil {
		t.Fatal(err)
	}
	body := f.finished(conn, begun.nonce, Finished{Replaces: lie.replaces, Resume: lie.resume}).body
	if lie.signer != nil {
		other := *f
		other.signer = lie.signer
		body = other.finished(conn, begun.nonce, Finished{}).body
	}
	if lie.finished != nil {
		body = lie.finished(conn, begun.nonce)
	}
	kind := TypeFinished
	if lie.kind != 0 {
		kind = lie.kind
	}
	if err := conn.Write(kind, body); err != nil {
		t.Fatal(err)
	}
	said := append(bytes.Clone(msg1), conn.leg.(*memoryLeg).written.Bytes()...)
	if lie.after != nil {
		said = lie.after(said)
	}
	return said
}

// flipped turns the lowest bit of one byte.
func flipped(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}

// cut keeps the first n bytes.
func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func (f *fixed) values(role string) vectors.Values {
	v := vectors.Values{
		"role": role, "mode": strconv.Itoa(int(f.mode)), "rid": vectors.Hex(f.rid[:]), "hh": vectors.Hex(f.hash[:]),
		"s": vectors.Hex(f.secret.Reveal()),
	}
	if role == "client" {
		fp := Fingerprint(f.public())
		v["fp"], v["signer_seed"] = vectors.Hex(fp[:]), vectors.Hex(f.signer.Seed())
		if f.mode == Sealed {
			v["recipient_private"] = vectors.Hex(f.recipient.Bytes())
		}
		return v
	}
	v["signer_public"] = vectors.Hex(f.signer.Public().(ed25519.PublicKey))
	v["daemon_seed"], v["conn_id"], v["nD"] = vectors.Hex(f.daemon.Seed()), vectors.Hex(f.connID[:]), vectors.Hex(f.nonce[:])
	v["challenge"], v["remaining_ms"] = vectors.Hex(f.accept.Challenge[:]), fmt.Sprint(f.accept.Remaining.Milliseconds())
	if f.mode == Sealed {
		v["recipient_public"] = vectors.Hex(f.recipient.PublicKey().Bytes())
	}
	return v
}

const aboutHandshake = "Handshakes: wire/README.md §5. role says who is judged. A client draws from random 32 bytes, whose SHAKE256 of 32 is " +
	"the seed of its X-Wing key (HPKE's DeriveKeyPair), and nC; it reads from_daemon (msg2, then READY's record) and must send sent (msg1, then FINISHED's record). " +
	"A daemon reads from_client and must send sent; from random come the HPKE ephemerals of encR (32) and of enc (64). " +
	"s is the session's secret, hh the handle's hash. Where a case fails nothing more may be sent, and nothing may run."

func TestHandshakesAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: aboutHandshake}
	for _, mode := range []Mode{Sealed, Bearer} {
		f, name := newFixed(mode), map[Mode]string{Sealed: "sealed", Bearer: "bearer"}[mode]
		f.clientCases(t, name, &file)
		f.daemonCases(t, name, &file)
		f.moreClientCases(t, name, &file)
		f.moreDaemonCases(t, name, &file)
	}
	vectors.Check(t, root, "handshake", file, judgeHandshake, vectors.Classes{
		"msg1 malformed": "msg1 is malformed", "msg1 mac": "msg1's mac is wrong", "low order": "low-order",
		"replay": "seen before", "msg2 malformed": "msg2 is malformed", "msg2 does not open": "msg2 does not open",
		"fingerprint": "its fingerprint is another", "daemon signature": "names: its signature is wrong",
		"record does not open": "it does not open", "record length": "bad record: a length of", "record order": "out of order",
		"READY malformed": "READY is malformed", "READY mac": "READY's mac is wrong",
		"FINISHED malformed": "FINISHED is malformed", "FINISHED mac": "FINISHED's mac is wrong",
		"commitment": "another nonce than was committed", "FINISHED signature": "FINISHED's signature is wrong",
		"FINISHED key": errOtherKey.Error(), "cut": "EOF",
	})
}

// clientCases are daemons that a client meets.
func (f *fixed) clientCases(t *testing.T, name string, file *vectors.File) {
	add := func(class, what string, lie daemonLies) { f.addClientCase(t, file, class, name+" client, "+what, lie) }
	size := Msg2Size(f.mode)
	encAt := 2 + 4 + 4
	if f.mode == Sealed {
		encAt += encRSize
	}
	ct2At := encAt + xwingEnc + 4
	mallory := ed25519.NewKeyFromSeed(fill(0x66, 32))
	add("", "an honest daemon", daemonLies{})
	add("msg2 malformed", "version 2", daemonLies{after: set(0, 2)})
	add("msg2 malformed", "a msg1 for a msg2", daemonLies{after: func(b []byte) []byte { b[1] = 1; return b }})
	add("msg2 malformed", "the length of encR", daemonLies{after: flipped(5)})
	add("msg2 malformed", "the length of enc", daemonLies{after: flipped(encAt - 1)})
	add("msg2 malformed", "the length of ct2", daemonLies{after: flipped(ct2At - 1)})
	add("msg2 does not open", "a bit of enc's ML-KEM part", daemonLies{after: flipped(encAt + 100)})
	add("msg2 does not open", "a bit of enc's X25519 part", daemonLies{after: flipped(encAt + xwingEnc - 20)})
	add("msg2 does not open", "a bit of ct2", daemonLies{after: flipped(ct2At)})
	add("msg2 does not open", "a bit of ct2's tag", daemonLies{after: flipped(size - 1)})
	add("low order", "enc with an X25519 part of zeros", daemonLies{after: func(b []byte) []byte {
		clear(b[encAt+xwingEnc-x25519Size : encAt+xwingEnc])
		return b
	}})
	add("low order", "enc with an X25519 part of 1", daemonLies{after: func(b []byte) []byte {
		clear(b[encAt+xwingEnc-x25519Size : encAt+xwingEnc])
		b[encAt+xwingEnc-x25519Size] = 1
		return b
	}})
	add("cut", "msg2 a byte short", daemonLies{after: cut(size - 1)})
	add("cut", "nothing at all", daemonLies{after: cut(0)})
	add("msg2 does not open", "a daemon with another S", daemonLies{keys: NewKeys(wire.SecretOf([32]byte(fill(0x5f, 32))))})
	other := wire.RendezvousID(fill(0x1e, 16))
	add("msg2 does not open", "another rid as PSK id", daemonLies{rid: &other})
	if f.mode == Sealed {
		add("msg2 does not open", "a bit of encR", daemonLies{after: flipped(6)})
	}
	add("fingerprint", "another daemon, honestly signed", daemonLies{shown: mallory.Public().(ed25519.PublicKey), signer: mallory})
	add("daemon signature", "signed by another key", daemonLies{signer: mallory})
	add("daemon signature", "signed over th1", daemonLies{signed: func(Transcript) Transcript { return f.th0(f.rid) }})
	add("daemon signature", "signed over another handshake", daemonLies{signed: func(th Transcript) Transcript { return th.WithProof(nil) }})
	add("msg2 malformed", "another length of P2 inside", daemonLies{plain: flipped(3)})
	add("msg2 malformed", "another length of the key inside", daemonLies{plain: flipped(7)})
	add("READY mac", "READY with another mac", daemonLies{ready: func(_ *Type, b *[]byte, _ func([]byte) []byte) { (*b)[0] ^= 1 }})
	add("READY mac", "READY for another FINISHED", daemonLies{ready: func(_ *Type, b *[]byte, mac func([]byte) []byte) {
		copy(*b, mac([]byte("another")))
	}})
	add("READY malformed", "READY a byte short", daemonLies{ready: func(_ *Type, b *[]byte, _ func([]byte) []byte) { *b = (*b)[:len(*b)-1] }})
	add("READY malformed", "READY a byte too long", daemonLies{ready: func(_ *Type, b *[]byte, _ func([]byte) []byte) { *b = append(*b, 0) }})
	add("READY malformed", "READY with 500 million years left", daemonLies{ready: func(_ *Type, b *[]byte, _ func([]byte) []byte) { (*b)[hmacSize+8] = 0xff }})
	add("record order", "a PASSPORT before READY", daemonLies{ready: func(k *Type, _ *[]byte, _ func([]byte) []byte) { *k = TypePassport }})
	add("record order", "the client's own type", daemonLies{ready: func(k *Type, _ *[]byte, _ func([]byte) []byte) { *k = TypeFinished }})
	add("record does not open", "a bit of READY's record", daemonLies{after: flipped(size + 10)})
	add("record length", "a length of READY's record that is none", daemonLies{after: flipped(size + 1)})
	add("cut", "READY a byte short on the wire", daemonLies{after: func(b []byte) []byte { return b[:len(b)-1] }})
	add("record does not open", "READY's record is msg2's client's own", daemonLies{after: func(b []byte) []byte {
		return append(b[:size:size], f.ownFinished(t)...)
	}})
}

// ownFinished is the record the client itself sends, to be reflected.
func (f *fixed) ownFinished(t *testing.T) []byte {
	t.Helper()
	return f.clientSays(t, clientLies{})[Msg1Size:][:recordHead+minRecord]
}

// daemonCases are clients that a daemon meets.
func (f *fixed) daemonCases(t *testing.T, name string, file *vectors.File) {
	add := func(class, what string, lie clientLies) { f.addDaemonCase(t, file, class, name+" daemon, "+what, lie) }
	last := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	add("", "an honest client", clientLies{})
	add("", "a client that replaces a connection and resumes two calls", clientLies{
		replaces: [16]byte(fill(0xc1, 16)), resume: []Resume{{ID: [16]byte(fill(1, 16)), Stdout: 5}, {ID: [16]byte(fill(2, 16)), Stderr: 1 << 40}},
	})
	add("msg1 malformed", "version 2", clientLies{msg1: func(b []byte) []byte { b[0] = 2; return b }})
	add("msg1 malformed", "a msg2 for a msg1", clientLies{msg1: func(b []byte) []byte { b[1] = 2; return b }})
	add("msg1 mac", "a bit of ek", clientLies{msg1: flipped(ekAt)})
	add("msg1 mac", "a bit of the commitment", clientLies{msg1: flipped(commitAt)})
	add("msg1 mac", "a bit of the mac", clientLies{msg1: last})
	add("msg1 mac", "a client with another S", clientLies{keys: NewKeys(wire.SecretOf([32]byte(fill(0x5f, 32))))})
	add("low order", "ek with an X25519 part of zeros", clientLies{ek: func(ek []byte) { clear(ek[xwingKey-x25519Size:]) }})
	add("low order", "ek with an X25519 part of p - 1", clientLies{ek: func(ek []byte) {
		copy(ek[xwingKey-x25519Size:], append(append([]byte{0xec}, fill(0xff, 30)...), 0x7f))
	}})
	add("cut", "msg1 a byte short", clientLies{msg1: cut(Msg1Size - 1)})
	add("cut", "nothing at all", clientLies{msg1: cut(0)})
	add("cut", "no FINISHED", clientLies{after: cut(Msg1Size)})
	add("cut", "half of FINISHED's record", clientLies{after: cut(Msg1Size + 150)})
	add("record does not open", "a bit of FINISHED's record", clientLies{after: last})
	add("record length", "a length of FINISHED's record that is none", clientLies{after: flipped(Msg1Size + 1)})
	add("record length", "a record of nothing", clientLies{after: func(b []byte) []byte { b[Msg1Size], b[Msg1Size+1] = 0, 0; return b }})
	add("record order", "a CALL before FINISHED", clientLies{kind: TypeCall})
	add("record order", "the daemon's type", clientLies{kind: TypeReady})
	add("FINISHED key", "another key, honestly signed", clientLies{signer: ed25519.NewKeyFromSeed(fill(0x66, 32))})
	reMAC := func(edit func(body []byte) []byte) clientLies {
		return clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
			said := edit(f.finished(conn, nonce, Finished{}).said)
			return append(said, finishedMAC(conn.keys, conn.transcript, said)...)
		}}
	}
	reSign := func(edit func(*Finished)) clientLies {
		return clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
			f2 := Finished{Nonce: nonce, Key: f.signer.Public().(ed25519.PublicKey)}
			edit(&f2)
			said := f2.sign(f.signer, conn.transcript, f.rid)
			return append(said, finishedMAC(conn.keys, conn.transcript, said)...)
		}}
	}
	add("FINISHED mac", "a bit of the HMAC", clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
		return last(f.finished(conn, nonce, Finished{}).body)
	}})
	add("FINISHED mac", "READY's mac", clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
		said := f.finished(conn, nonce, Finished{}).said
		return append(said, readyMAC(conn.keys, conn.transcript, said)...)
	}})
	add("FINISHED malformed", "no room for an HMAC", clientLies{finished: func(*Conn, [32]byte) []byte { return fill(1, 31) }})
	add("commitment", "another nC than was committed to", reSign(func(f2 *Finished) { f2.Nonce[0] ^= 1 }))
	add("FINISHED signature", "a bit of the signature", reMAC(last))
	add("FINISHED signature", "replaces edited", reMAC(flipped(70)))
	add("FINISHED signature", "signed for another session", clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
		other := *f
		other.rid[0] ^= 1
		said := other.finished(conn, nonce, Finished{}).said
		return append(said, finishedMAC(conn.keys, conn.transcript, said)...)
	}})
	add("FINISHED signature", "signed over another transcript", clientLies{finished: func(conn *Conn, nonce [32]byte) []byte {
		f2 := Finished{Nonce: nonce, Key: f.signer.Public().(ed25519.PublicKey)}
		said := f2.sign(f.signer, conn.transcript.WithMsg1(nil), f.rid)
		return append(said, finishedMAC(conn.keys, conn.transcript, said)...)
	}})
	add("FINISHED malformed", "nine calls to resume", reSign(func(f2 *Finished) { f2.Resume = make([]Resume, 9) }))
	add("FINISHED malformed", "one call announced, none there", reMAC(func(b []byte) []byte { b[80] = 1; return b }))
	add("FINISHED malformed", "a byte too many", reMAC(func(b []byte) []byte { return append(b, 0) }))
	add("FINISHED malformed", "a byte too few", reMAC(func(b []byte) []byte { return b[:len(b)-1] }))

	honest := f.clientSays(t, clientLies{})
	in := f.values("daemon")
	in["random"], in["from_client"], in["seen_msg1"] = vectors.Hex(drawn(&counting{next: 0x80}, 96)), vectors.Hex(honest), vectors.Hex(honest[:Msg1Size])
	file.Cases = append(file.Cases, vectors.Case{Name: name + " daemon, a msg1 that was answered before", In: in, Error: "replay"})
}

// drawn is what a source gives first.
func drawn(from io.Reader, n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(from, b) // a counting source does not fail
	return b
}

// judgeHandshake runs one side on the bytes of the other.
func judgeHandshake(t *testing.T, in vectors.Values) (vectors.Values, error) {
	f, err := fixedOf(t, in)
	if err != nil {
		t.Fatal(err)
	}
	if in["role"] == "daemon" {
		return f.judgeDaemon(t, in)
	}
	cfg := f.client()
	cfg.Fingerprint = [32]byte(in.Bytes(t, "fp"))
	cfg.Rand = bytes.NewReader(in.Bytes(t, "random"))
	leg := &memoryLeg{Reader: bytes.NewReader(in.Bytes(t, "from_daemon"))}
	conn, err := Client(t.Context(), leg, cfg)
	if err != nil {
		if inMsg2(err) && leg.written.Len() != Msg1Size {
			t.Errorf("the client sent %d bytes to a daemon it must not believe", leg.written.Len())
		}
		return nil, err
	}
	out := vectors.Values{
		"sent": vectors.Hex(leg.written.Bytes()), "conn_id": vectors.Hex(conn.id[:]), "challenge": vectors.Hex(conn.challenge[:]),
		"remaining_ms": fmt.Sprint(conn.remaining.Milliseconds()), "session_words_secret": vectors.Hex(conn.words),
		"daemon_key": vectors.Hex(conn.daemonKey),
	}
	f.schedule(t, in, leg.written.Bytes()[:Msg1Size], out)
	return out, nil
}

// inMsg2 is whether the client failed before it may send FINISHED.
func inMsg2(err error) bool {
	return errors.Is(err, ErrWrongDaemon) || errors.Is(err, errMsg2) || errors.Is(err, errLowOrder) ||
		strings.Contains(err.Error(), "msg2")
}

// schedule adds what lies between: the transcript's hashes and the keys.
func (f *fixed) schedule(t *testing.T, in vectors.Values, msg1 []byte, out vectors.Values) {
	t.Helper()
	cfg := f.client()
	m, err := parseMsg2(f.mode, in.Bytes(t, "from_daemon")[:Msg2Size(f.mode)])
	if err != nil {
		t.Fatal(err)
	}
	th0 := f.th0(f.rid)
	th1 := th0.WithMsg1(msg1)
	th1b := th1.WithProof(m.encR)
	th2 := th1b.WithMsg2(m.enc, m.ct2)
	begun, err := cfg.begin(th0)
	if err != nil {
		t.Fatal(err)
	}
	ssR, err := cfg.recipientProof(th1, m.encR)
	if err != nil {
		t.Fatal(err)
	}
	psk := cfg.Keys.psk(ssR, th1.th)
	out["ssR"], out["psk"], out["prkS"] = vectors.Hex(ssR), vectors.Hex(psk), vectors.Hex(cfg.Keys.prk.Reveal())
	opener, err := cfg.decapsulate(begun.private, psk, th1b, m.enc)
	if err != nil {
		t.Fatal(err)
	}
	keys := newSecrets(opener, th2)
	for name, b := range map[string][]byte{
		"th0": th0.th[:], "th1": th1.th[:], "th1b": th1b.th[:], "th2": th2.th[:],
		"mac1_key": cfg.Keys.mac1Key(th0.th), "join_seed": cfg.Keys.JoinKey().Seed(),
		"master": opener.Export(wire.LP([]byte("openscope/1 master"), th2.th[:]), 32),
		"fin_c":  keys.finishedKey, "fin_d": keys.readyKey, "sas": keys.words,
		"key_c2d": keys.toDaemon.key, "iv_c2d": keys.toDaemon.iv, "key_d2c": keys.toClient.key, "iv_d2c": keys.toClient.iv,
	} {
		out[name] = vectors.Hex(b)
	}
}

func (f *fixed) judgeDaemon(t *testing.T, in vectors.Values) (vectors.Values, error) {
	cfg := f.server()
	cfg.Authority = &vectorAuthority{fixed: f}
	cfg.Rand = bytes.NewReader(in.Bytes(t, "random"))
	if in["seen_msg1"] != "" {
		ek, err := ekOf(in.Bytes(t, "seen_msg1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := cfg.Guard.admit(ek); err != nil {
			t.Fatal(err)
		}
	}
	leg := &memoryLeg{Reader: bytes.NewReader(in.Bytes(t, "from_client"))}
	conn, err := Daemon(t.Context(), leg, cfg)
	if err != nil {
		if sent := leg.written.Len(); sent != 0 && sent != Msg2Size(f.mode) {
			t.Errorf("the daemon sent %d bytes to a client it refuses", sent)
		}
		return nil, err
	}
	th2 := conn.TH2()
	return vectors.Values{
		"sent": vectors.Hex(leg.written.Bytes()), "th2": vectors.Hex(th2[:]), "session_words_secret": vectors.Hex(conn.words),
	}, nil
}

// fixedOf reads a session back from a case.
func fixedOf(t *testing.T, in vectors.Values) (*fixed, error) {
	mode, err := strconv.Atoi(in["mode"])
	if err != nil {
		return nil, err
	}
	f := newFixed(Mode(mode))
	f.rid, f.hash, f.secret = wire.RendezvousID(in.Bytes(t, "rid")), [32]byte(in.Bytes(t, "hh")), wire.SecretOf([32]byte(in.Bytes(t, "s")))
	if in["role"] == "client" {
		f.signer = ed25519.NewKeyFromSeed(in.Bytes(t, "signer_seed"))
		if f.mode == Sealed {
			f.recipient, err = ecdh.X25519().NewPrivateKey(in.Bytes(t, "recipient_private"))
		}
		return f, err
	}
	f.daemon = ed25519.NewKeyFromSeed(in.Bytes(t, "daemon_seed"))
	f.connID, f.nonce = [16]byte(in.Bytes(t, "conn_id")), [32]byte(in.Bytes(t, "nD"))
	ms, err := strconv.Atoi(in["remaining_ms"])
	f.accept = Acceptance{Challenge: [8]byte(in.Bytes(t, "challenge")), Remaining: time.Duration(ms) * time.Millisecond}
	return f, err
}

func TestSealedSecretsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "S as it stands sealed in a handle: wire/README.md §4. key is the recipient's X25519 private key."}
	f := newFixed(Sealed)
	header := fill(0x4e, 90)
	enc, box, err := SealSecret(new(counting), f.recipient.PublicKey(), header, f.secret)
	if err != nil {
		t.Fatal(err)
	}
	add := func(class, name string, key, header, enc, box []byte) {
		c := vectors.Case{Name: name, Error: class, In: vectors.Values{
			"key": vectors.Hex(key), "header": vectors.Hex(header), "enc": vectors.Hex(enc), "box": vectors.Hex(box),
		}}
		if class == "" {
			c.Out = vectors.Values{"s": vectors.Hex(f.secret.Reveal())}
		}
		file.Cases = append(file.Cases, c)
	}
	key := f.recipient.Bytes()
	add("", "for this key", key, header, enc[:], box[:])
	add("not for this key", "for another key", fill(0x7b, 32), header, enc[:], box[:])
	add("not for this key", "a bit of the header", key, flipped(40)(bytes.Clone(header)), enc[:], box[:])
	add("not for this key", "a header cut", key, header[:89], enc[:], box[:])
	add("not for this key", "a bit of enc", key, header, flipped(3)(bytes.Clone(enc[:])), box[:])
	add("not for this key", "enc of zeros", key, header, fill(0, 32), box[:])
	add("not for this key", "a bit of the box", key, header, enc[:], flipped(3)(bytes.Clone(box[:])))
	add("not for this key", "a bit of its tag", key, header, enc[:], flipped(47)(bytes.Clone(box[:])))
	vectors.Check(t, root, "sealed-secret", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		key, err := ecdh.X25519().NewPrivateKey(in.Bytes(t, "key"))
		if err != nil {
			return nil, err
		}
		s, err := OpenSecret(key, in.Bytes(t, "header"), [32]byte(in.Bytes(t, "enc")), [48]byte(in.Bytes(t, "box")))
		if err != nil {
			return nil, err
		}
		return vectors.Values{"s": vectors.Hex(s.Reveal())}, nil
	}, vectors.Classes{"not for this key": ErrNotForThisKey.Error()})
}

func TestRecordsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Records of one direction, after the handshake: wire/README.md §6. to says whose direction it is; first is the number of " +
		"the first record of the stream. A case succeeds with the type and body of every record, and fails at its last."}
	key, iv := fill(0x4b, 32), fill(0x1f, 12)
	type said struct {
		kind  Type
		body  []byte
		plain func([]byte) []byte // edits the padded plaintext
	}
	seal := func(first uint64, records ...said) [][]byte {
		d := newDirection(recordKey{bytes.Clone(key), iv})
		d.count = first
		var all [][]byte
		for _, r := range records {
			plain := append([]byte{byte(r.kind), 0, 0}, r.body...)
			binary.BigEndian.PutUint16(plain[1:], uint16(len(r.body)))
			plain = append(plain, make([]byte, (padTo-len(plain)%padTo)%padTo)...)
			if r.plain != nil {
				plain = r.plain(plain)
			}
			if err := d.step(len(plain)); err != nil {
				t.Fatal(err)
			}
			head := binary.BigEndian.AppendUint16(nil, uint16(len(plain)+tagSize))
			all = append(all, append(head, d.aead.Seal(nil, d.nonce[:], plain, head)...))
		}
		return all
	}
	add := func(class, name, to string, first uint64, stream []byte, records ...said) {
		c := vectors.Case{Name: name, Error: class, In: vectors.Values{
			"key": vectors.Hex(key), "iv": vectors.Hex(iv), "to": to, "first": fmt.Sprint(first), "stream": vectors.Hex(stream),
		}}
		if class == "" {
			c.Out = vectors.Values{}
			for i, r := range records {
				c.Out[fmt.Sprint(i)] = fmt.Sprintf("%d %x", r.kind, r.body)
			}
		}
		file.Cases = append(file.Cases, c)
	}
	join := func(records [][]byte) []byte { return bytes.Join(records, nil) }
	good := func(name, to string, first uint64, records ...said) {
		add("", name, to, first, join(seal(first, records...)), records...)
	}
	ping, small := said{kind: TypePing, body: fill(7, 16)}, said{kind: TypeCancel, body: fill(1, 16)}
	good("one small record", "daemon", 1, small)
	good("an empty body", "client", 1, said{kind: TypeOut, body: []byte{}})
	good("a body that fills its padding", "client", 1, said{kind: TypeOut, body: fill(9, padTo-plainHead)})
	good("a body one byte longer", "client", 1, said{kind: TypeOut, body: fill(9, padTo-plainHead+1)})
	good("the longest body", "client", 1, said{kind: TypeOut, body: fill(9, MaxBody)})
	good("three in order", "daemon", 1, small, ping, said{kind: TypeClose, body: []byte{8}})
	good("the 2^31st record", "client", 1<<31, ping)
	good("the last record of a key", "client", maxRecords-1, ping)
	for _, k := range []Type{TypePassport, TypeOut, TypeEnd, TypePing, TypePong, TypeNotice, TypeError, TypeClose} {
		good(fmt.Sprintf("type %d to a client", k), "client", 1, said{kind: k, body: []byte("x")})
	}
	for _, k := range []Type{TypeCall, TypeCancel, TypeWindow, TypePing, TypePong, TypeClose} {
		good(fmt.Sprintf("type %d to a daemon", k), "daemon", 1, said{kind: k, body: []byte("x")})
	}
	three := seal(1, small, ping, small)
	add("does not open", "the second left out", "daemon", 1, join([][]byte{three[0], three[2]}))
	add("does not open", "two swapped", "daemon", 1, join([][]byte{three[1], three[0]}))
	add("does not open", "the first twice", "daemon", 1, join([][]byte{three[0], three[0]}))
	add("does not open", "one of another number", "daemon", 2, three[0])
	add("does not open", "a bit of the ciphertext", "daemon", 1, flipped(20)(bytes.Clone(three[0])))
	add("does not open", "a bit of the tag", "daemon", 1, flipped(len(three[0])-1)(bytes.Clone(three[0])))
	long := seal(1, said{kind: TypeCall, body: fill(3, 600)})[0]
	shorter := bytes.Clone(long)
	binary.BigEndian.PutUint16(shorter, uint16(minRecord))
	add("does not open", "a length that is another good one", "daemon", 1, shorter)
	for _, n := range []int{0, 1, tagSize, minRecord - 1, minRecord + 1, maxRecord + padTo, 65_535} {
		add("length", fmt.Sprintf("a length of %d", n), "daemon", 1, append(binary.BigEndian.AppendUint16(nil, uint16(n)), make([]byte, 600)...))
	}
	plain := func(class, name string, body []byte, edit func([]byte) []byte) {
		add(class, name, "daemon", 1, seal(1, said{kind: TypeCancel, body: body, plain: edit})[0])
	}
	plain("padding", "padding that is not zero", fill(1, 16), func(b []byte) []byte { b[200] = 1; return b })
	plain("padding", "the last byte is not zero", fill(1, 16), func(b []byte) []byte { b[255] = 1; return b })
	plain("body", "256 bytes of padding too many", fill(1, 16), func(b []byte) []byte { return append(b, make([]byte, padTo)...) })
	plain("body", "a body longer than its record", fill(1, 16), func(b []byte) []byte { b[1] = 0xff; return b })
	plain("body", "a body one byte longer than its record", fill(1, 16), func(b []byte) []byte { b[1], b[2] = 0, 254; return b })
	for _, k := range []Type{0, TypeReady, TypePassport, TypeOut, TypeEnd, TypeNotice, TypeError, 14, 255} {
		add("order", fmt.Sprintf("type %d to a daemon", k), "daemon", 1, seal(1, said{kind: k, body: []byte("x")})[0])
	}
	for _, k := range []Type{0, TypeFinished, TypeCall, TypeCancel, TypeWindow, 14, 255} {
		add("order", fmt.Sprintf("type %d to a client", k), "client", 1, seal(1, said{kind: k, body: []byte("x")})[0])
	}
	add("order", "FINISHED again", "daemon", 1, seal(1, said{kind: TypeFinished, body: []byte("x")})[0])
	add("order", "READY again", "client", 1, seal(1, said{kind: TypeReady, body: []byte("x")})[0])
	add("order", "a CALL first", "daemon", 0, seal(0, said{kind: TypeCall, body: []byte("x")})[0])
	add("spent", "one record too many for a key", "daemon", maxRecords, join(three))
	add("cut", "half a record", "daemon", 1, three[0][:100])
	add("cut", "a record after which half a head comes", "daemon", 1, append(bytes.Clone(three[0]), 1))
	vectors.Check(t, root, "record", file, judgeRecords, vectors.Classes{
		"does not open": "it does not open", "length": "a length of", "padding": "padding that is not zero", "body": "a body of",
		"order": "out of order", "spent": ErrSpent.Error(), "cut": "unexpected EOF",
	})
}

// judgeRecords reads a stream to its end, or to the first bad record.
func judgeRecords(t *testing.T, in vectors.Values) (vectors.Values, error) {
	first, err := strconv.ParseUint(in["first"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	to := clientRole
	if in["to"] == "daemon" {
		to = daemonRole
	}
	leg := &memoryLeg{Reader: bytes.NewReader(in.Bytes(t, "stream"))}
	r := newRx(leg, recordKey{in.Bytes(t, "key"), in.Bytes(t, "iv")}, to)
	r.dir.count = first
	out := vectors.Values{}
	for i := 0; ; i++ {
		kind, body, err := r.read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			if _, _, again := r.read(); again != err {
				t.Errorf("after %v the next read says %v", err, again)
			}
			return nil, err
		}
		out[fmt.Sprint(i)] = fmt.Sprintf("%d %x", kind, body)
	}
}

// Both ends spend the cost of a handshake on whoever has S, and little on
// anybody else.
func TestAHostilePeerCostsLittle(t *testing.T) {
	file := vectors.Load(t, root, "handshake")
	for _, mode := range []Mode{Sealed, Bearer} {
		f := newFixed(mode)
		most := vectors.HoldAllocations(t, file.Inputs(t, "from_client", true), 5, func(b []byte) {
			cfg := f.server()
			cfg.Authority = &vectorAuthority{fixed: f}
			_, _ = Daemon(t.Context(), &memoryLeg{Reader: bytes.NewReader(b)}, cfg)
		})
		t.Logf("mode %d: a daemon, at most %d bytes beyond four times the input", mode, most)
		most = vectors.HoldAllocations(t, file.Inputs(t, "from_daemon", true), 5, func(b []byte) {
			_, _ = Client(t.Context(), &memoryLeg{Reader: bytes.NewReader(b)}, f.client())
		})
		t.Logf("mode %d: a client, at most %d bytes beyond four times the input", mode, most)
	}
	inputs := vectors.Load(t, root, "record").Inputs(t, "stream", true)
	most := vectors.HoldAllocations(t, inputs, 20, func(b []byte) {
		r := newRx(&memoryLeg{Reader: bytes.NewReader(b)}, recordKey{fill(0x4b, 32), fill(0x1f, 12)}, daemonRole)
		r.dir.count = 1
		for {
			if _, _, err := r.read(); err != nil {
				return
			}
		}
	})
	t.Logf("records: at most %d bytes beyond four times the input", most)
}
