package bench

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// The client's side of the channel once more, written from wire/README.md and
// from nothing else of this project: X-Wing and HPKE's psk mode by hand, base
// mode as Go's own. Of what it needs, the standard library lacks only the AEAD.

// lp, hash and expand are the notation of §1.
func lp(parts ...[]byte) []byte {
	var b []byte
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

func hash(label string, parts ...[]byte) [32]byte {
	const protocol = "openscope/1 e2e XWing+X25519 HKDF-SHA256 ChaCha20Poly1305 Ed25519"
	return sha256.Sum256(lp(append([][]byte{[]byte(protocol), []byte(label)}, parts...)...))
}

func expand(key []byte, label string, context []byte) []byte {
	out, err := hkdf.Expand(sha256.New, key, string(lp([]byte("openscope/1 "+label), context)), 32)
	if err != nil {
		panic(err) // the length is a constant
	}
	return out
}

func extract(salt, secret []byte) []byte {
	key, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		panic(err)
	}
	return key
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(lp(parts...))
	return h.Sum(nil)
}

// openSecret takes S out of a sealed handle (§4).
func openSecret(key *ecdh.PrivateKey, header, enc, box []byte) (secret [32]byte, err error) {
	private, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return secret, err
	}
	info := lp([]byte("openscope/1 handle seal"), header)
	r, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info)
	if err != nil {
		return secret, err
	}
	plain, err := r.Open(header, box)
	if err != nil || len(plain) != len(secret) {
		return secret, errors.Join(err, fmt.Errorf("%d bytes in the box", len(plain)))
	}
	return [32]byte(plain), nil
}

// xwingKey is an X-Wing key pair (draft-connolly-cfrg-xwing-kem).
type xwingKey struct {
	postQuantum *mlkem.DecapsulationKey768
	classical   *ecdh.PrivateKey
}

func newXWingKey(seed [32]byte) (k xwingKey, err error) {
	expanded := sha3.SumSHAKE256(seed[:], 96)
	if k.postQuantum, err = mlkem.NewDecapsulationKey768(expanded[:64]); err != nil {
		return k, err
	}
	k.classical, err = ecdh.X25519().NewPrivateKey(expanded[64:])
	return k, err
}

func (k xwingKey) public() []byte {
	return append(k.postQuantum.EncapsulationKey().Bytes(), k.classical.PublicKey().Bytes()...)
}

func (k xwingKey) decapsulate(enc []byte) ([]byte, error) {
	if len(enc) != mlkem.CiphertextSize768+32 {
		return nil, fmt.Errorf("an encapsulation of %d bytes", len(enc))
	}
	inner, share := enc[:mlkem.CiphertextSize768], enc[mlkem.CiphertextSize768:]
	first, err := k.postQuantum.Decapsulate(inner)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().NewPublicKey(share)
	if err != nil {
		return nil, err
	}
	second, err := k.classical.ECDH(theirs) // refuses what comes to zero
	if err != nil {
		return nil, err
	}
	sum := sha3.Sum256(slices.Concat(first, second, share, k.classical.PublicKey().Bytes(), []byte(`\.//^\`)))
	return sum[:], nil
}

// pskContext is a receiver's context of HPKE in psk mode (RFC 9180 §5.1) for
// X-Wing, HKDF-SHA256 and ChaCha20-Poly1305.
type pskContext struct {
	aead     cipher.AEAD
	nonce    []byte
	exporter []byte
}

// hpkeSuite is suite_id of RFC 9180 §5.1.
var hpkeSuite = []byte("HPKE\x64\x7a\x00\x01\x00\x03")

func labeledExtract(salt []byte, label string, secret []byte) []byte {
	return extract(salt, slices.Concat([]byte("HPKE-v1"), hpkeSuite, []byte(label), secret))
}

func labeledExpand(key []byte, label string, info []byte, size int) []byte {
	labeled := binary.BigEndian.AppendUint16(nil, uint16(size))
	labeled = slices.Concat(labeled, []byte("HPKE-v1"), hpkeSuite, []byte(label), info)
	out, err := hkdf.Expand(sha256.New, key, string(labeled), size)
	if err != nil {
		panic(err)
	}
	return out
}

func newPSKContext(shared, info, psk, pskID []byte) (c pskContext, err error) {
	const modePSK = 1
	schedule := slices.Concat([]byte{modePSK}, labeledExtract(nil, "psk_id_hash", pskID), labeledExtract(nil, "info_hash", info))
	secret := labeledExtract(shared, "secret", psk)
	c.nonce = labeledExpand(secret, "base_nonce", schedule, 12)
	c.exporter = labeledExpand(secret, "exp", schedule, 32)
	c.aead, err = chacha20poly1305.New(labeledExpand(secret, "key", schedule, 32))
	return c, err
}

// open opens the context's first message: there is only one.
func (c pskContext) open(sealed, aad []byte) ([]byte, error) {
	return c.aead.Open(nil, c.nonce, sealed, aad)
}

func (c pskContext) export(context []byte) []byte {
	return labeledExpand(c.exporter, "sec", context, 32)
}

// secondConfig is what a client has before it begins.
type secondConfig struct {
	handleHash  [32]byte
	rid         [16]byte
	secret      []byte           // S
	opens       *ecdh.PrivateKey // the recipient's; nil for bearer
	seed, nonce [32]byte         // fresh: X-Wing's seed, and nC
	fingerprint *[32]byte        // nil for a client that believes anybody
}

// second is a client's handshake and what came of it.
type second struct {
	secondConfig
	prk, mac1Key        []byte
	ephemeral           xwingKey
	th0, th1, th1b, th2 [32]byte
	ssR, psk, master    []byte
	daemonKey           ed25519.PublicKey
	connID              [16]byte
	daemonNonce         []byte
	up, down            recordStream
}

func newSecond(cfg secondConfig) (*second, error) {
	ephemeral, err := newXWingKey(cfg.seed)
	if err != nil {
		return nil, err
	}
	c := &second{secondConfig: cfg, prk: extract([]byte("openscope/1 S"), cfg.secret), ephemeral: ephemeral}
	mode, recipient := []byte{1}, []byte(nil)
	if c.opens != nil {
		mode, recipient = []byte{0}, c.opens.PublicKey().Bytes()
	}
	c.th0 = hash("th0", mode, c.handleHash[:], recipient, c.rid[:])
	c.mac1Key = expand(c.prk, "msg1 mac", c.th0[:])
	return c, nil
}

// msg1 is the client's first message (§5.2).
func (c *second) msg1() []byte {
	commit := hash("commit", c.nonce[:])
	ek := c.ephemeral.public()
	msg := slices.Concat([]byte{1, 1}, ek, commit[:], mac(c.mac1Key, c.th0[:], ek, commit[:]))
	c.th1 = hash("th1", c.th0[:], msg)
	return msg
}

// shake sends msg1 and takes msg2.
func (c *second) shake(leg io.ReadWriter) error {
	if _, err := leg.Write(c.msg1()); err != nil {
		return err
	}
	msg2 := make([]byte, c.sizes().msg2)
	if _, err := io.ReadFull(leg, msg2); err != nil {
		return err
	}
	return c.takeMsg2(msg2)
}

// sizes are those of §5.3 for sealed and for bearer.
func (c *second) sizes() (s struct{ msg2, encR int }) {
	s.msg2 = 1314
	if c.opens != nil {
		s.msg2, s.encR = 1346, 32
	}
	return s
}

// takeMsg2 opens msg2 and derives the connection's keys (§5.3, §5.5).
func (c *second) takeMsg2(msg2 []byte) error {
	parts, err := unpack(msg2[2:], 3)
	if err != nil {
		return err
	}
	encR, enc, ct2 := parts[0], parts[1], parts[2]
	if msg2[0] != 1 || msg2[1] != 2 || len(enc) != 1120 || len(encR) != c.sizes().encR {
		return errors.New("msg2 is malformed")
	}
	if c.ssR, err = c.prove(encR); err != nil {
		return err
	}
	c.psk = expand(extract(c.prk, c.ssR), "psk", c.th1[:])
	c.th1b = hash("th1b", c.th1[:], encR)
	shared, err := c.ephemeral.decapsulate(enc)
	if err != nil {
		return err
	}
	context, err := newPSKContext(shared, lp([]byte("openscope/1 channel"), c.th1b[:]), c.psk, c.rid[:])
	if err != nil {
		return err
	}
	plain, err := context.open(ct2, c.th1b[:])
	if err != nil {
		return err
	}
	if err := c.believe(plain, enc); err != nil {
		return err
	}
	c.th2 = hash("th2", c.th1b[:], enc, ct2)
	c.master = context.export(lp([]byte("openscope/1 master"), c.th2[:]))
	if c.up, err = newRecordStream(c.master, "c2d"); err != nil {
		return err
	}
	c.down, err = newRecordStream(c.master, "d2c")
	return err
}

// prove is ssR: what only the recipient's key opens, or zeros.
func (c *second) prove(encR []byte) ([]byte, error) {
	if c.opens == nil {
		return make([]byte, 32), nil
	}
	private, err := hpke.NewDHKEMPrivateKey(c.opens)
	if err != nil {
		return nil, err
	}
	info := lp([]byte("openscope/1 recipient proof"), c.th1[:])
	r, err := hpke.NewRecipient(encR, private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info)
	if err != nil {
		return nil, err
	}
	return r.Export("openscope/1 ssR", 32)
}

// believe takes the daemon's words apart and holds its signature against them.
func (c *second) believe(plain, enc []byte) error {
	outer, err := unpack(plain, 2)
	if err != nil {
		return err
	}
	says, err := unpack(outer[0], 3)
	if err != nil {
		return err
	}
	if len(says[0]) != 32 || len(says[1]) != 16 || len(says[2]) != 32 {
		return errors.New("what msg2 says is malformed")
	}
	c.daemonKey, c.connID, c.daemonNonce = says[0], [16]byte(says[1]), says[2]
	if c.fingerprint != nil && hash("daemon fingerprint", c.daemonKey) != *c.fingerprint {
		return errors.New("another daemon answers")
	}
	digest := hash("sig", c.th1b[:], enc, outer[0])
	if !ed25519.Verify(c.daemonKey, lp([]byte("openscope/1 daemon signature"), digest[:]), outer[1]) {
		return errors.New("the daemon's signature is wrong")
	}
	return nil
}

// unpack takes lp apart.
func unpack(b []byte, n int) (parts [][]byte, err error) {
	for range n {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		size := binary.BigEndian.Uint32(b)
		parts, b = append(parts, b[4:4+size]), b[4+size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(b))
	}
	return parts, nil
}

// finishedMAC ends FINISHED, and readyMAC begins READY (§5.4).
func (c *second) finishedMAC(body []byte) []byte {
	return mac(expand(c.master, "fin c", nil), []byte("client finished"), c.th2[:], body)
}

func (c *second) readyMAC(finished []byte) []byte {
	th3 := hash("th3", c.th2[:], finished)
	return mac(expand(c.master, "fin d", nil), []byte("daemon ready"), th3[:])
}

// finished is an honest FINISHED that replaces and resumes nothing.
func (c *second) finished(signer ed25519.PrivateKey) []byte {
	body := slices.Concat(c.nonce[:], signer.Public().(ed25519.PublicKey), make([]byte, 16), []byte{0})
	body = append(body, ed25519.Sign(signer, lp([]byte("openscope/1 client signature"), c.rid[:], c.th2[:], body))...)
	return append(body, c.finishedMAC(body)...)
}

// awaitReady reads READY, the answer to a FINISHED.
func (c *second) awaitReady(from io.Reader, finished []byte) (challenge [8]byte, remaining uint64, err error) {
	typ, body, err := c.down.open(from)
	if err != nil {
		return challenge, 0, err
	}
	if typ != 2 || len(body) != 48 || !hmac.Equal(body[:32], c.readyMAC(finished)) {
		return challenge, 0, errors.New("READY is wrong")
	}
	remaining = binary.BigEndian.Uint64(body[40:])
	if remaining > 24*60*60*1000 {
		return challenge, 0, errors.New("READY gives more time than there can be")
	}
	return [8]byte(body[32:40]), remaining, nil
}

// sessionWords is the secret whose first bits are the words (§10).
func (c *second) sessionWords() []byte {
	return expand(expand(c.master, "sas", nil), "words", lp(c.nonce[:], c.daemonNonce, c.th2[:]))
}

// recordStream is one direction's key and count (§6).
type recordStream struct {
	aead  cipher.AEAD
	key   []byte
	iv    []byte
	count uint64
}

func newRecordStream(master []byte, direction string) (recordStream, error) {
	return streamOf(expand(master, "key "+direction, nil), expand(master, "iv "+direction, nil)[:12])
}

func streamOf(key, iv []byte) (s recordStream, err error) {
	s.key, s.iv = key, iv
	s.aead, err = chacha20poly1305.New(key)
	return s, err
}

func (s *recordStream) nonce() []byte {
	nonce := bytes.Clone(s.iv)
	tail := binary.BigEndian.Uint64(nonce[4:]) ^ s.count
	binary.BigEndian.PutUint64(nonce[4:], tail)
	s.count++
	return nonce
}

func padded(typ byte, body []byte) []byte {
	plain := slices.Concat([]byte{typ, byte(len(body) >> 8), byte(len(body))}, body)
	return append(plain, make([]byte, (256-len(plain)%256)%256)...)
}

// seal is a record with any plaintext.
func (s *recordStream) seal(plain []byte) []byte {
	head := binary.BigEndian.AppendUint16(nil, uint16(len(plain)+16))
	return s.aead.Seal(head, s.nonce(), plain, head[:2])
}

// open reads the next record, and takes it only if it is written in the one way
// that there is.
func (s *recordStream) open(from io.Reader) (typ byte, body []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(from, head); err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint16(head))
	if size < 272 || size > 16_400 || (size-16)%256 != 0 || s.count == 1<<32 {
		return 0, nil, fmt.Errorf("record %d of %d bytes", s.count, size)
	}
	sealed := make([]byte, size)
	if _, err := io.ReadFull(from, sealed); err != nil {
		return 0, nil, fmt.Errorf("a record is cut: %w", err)
	}
	plain, err := s.aead.Open(nil, s.nonce(), sealed, head)
	if err != nil {
		return 0, nil, fmt.Errorf("opening a record: %w", err)
	}
	end := 3 + int(binary.BigEndian.Uint16(plain[1:]))
	if end > len(plain) || end <= len(plain)-256 || bytes.ContainsFunc(plain[end:], func(r rune) bool { return r != 0 }) {
		return 0, nil, errors.New("a record's padding is wrong")
	}
	return plain[0], plain[3:end], nil
}
