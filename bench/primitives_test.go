package bench

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	circlhpke "github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// rfc9180Vector is one of the vectors of RFC 9180 with all that comes of it.
type rfc9180Vector struct {
	Mode           uint8
	KEM            circlhpke.KEM  `json:"kem_id"`
	KDF            circlhpke.KDF  `json:"kdf_id"`
	AEAD           circlhpke.AEAD `json:"aead_id"`
	Info           hexBytes
	IkmR, SkRm     hexBytes
	PkRm           hexBytes
	IkmE, Enc      hexBytes
	PSK            hexBytes
	PSKID          hexBytes `json:"psk_id"`
	SharedSecret   hexBytes `json:"shared_secret"`
	Key            hexBytes
	BaseNonce      hexBytes `json:"base_nonce"`
	ExporterSecret hexBytes `json:"exporter_secret"`
	Encryptions    []struct{ AAD, CT, PT hexBytes }
	Exports        []struct {
		Context hexBytes `json:"exporter_context"`
		L       int
		Value   hexBytes `json:"exported_value"`
	}
}

func (v *rfc9180Vector) name() string {
	return fmt.Sprintf("mode %d, KDF %d, AEAD %#x", v.Mode, v.KDF, uint16(v.AEAD))
}

func rfc9180Vectors(t *testing.T) (vectors []rfc9180Vector) {
	t.Helper()
	text, err := os.ReadFile("../testdata/rfc9180/x25519.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// circlKeys is a key pair in circl's types, read as the channel reads keys.
func circlKeys(t *testing.T, id circlhpke.KEM, public, private []byte) (kem.PublicKey, kem.PrivateKey) {
	t.Helper()
	pk, errPublic := id.Scheme().UnmarshalBinaryPublicKey(public)
	sk, errPrivate := id.Scheme().UnmarshalBinaryPrivateKey(private)
	if err := errors.Join(errPublic, errPrivate); err != nil {
		t.Fatal(err)
	}
	return pk, sk
}

func TestRFC9180SharedSecretsAreCirclsByteForByte(t *testing.T) {
	vectors := rfc9180Vectors(t)
	for _, v := range vectors {
		scheme := v.KEM.Scheme()
		public, private := circlKeys(t, v.KEM, v.PkRm, v.SkRm)
		if pk, sk := scheme.DeriveKeyPair(v.IkmR); !pk.Equal(public) || !sk.Equal(private) {
			t.Errorf("%s: another key pair is derived", v.name())
		}
		enc, shared, err := scheme.EncapsulateDeterministically(public, v.IkmE)
		if err != nil || !bytes.Equal(enc, v.Enc) || !bytes.Equal(shared, v.SharedSecret) {
			t.Errorf("%s: encapsulated %x in %x, %v", v.name(), shared, enc, err)
		}
		if err := mustBe(v.SharedSecret)(scheme.Decapsulate(private, v.Enc)); err != nil {
			t.Errorf("%s: decapsulating: %v", v.name(), err)
		}
	}
	t.Logf("%d vectors ran", len(vectors))
	if len(vectors) != 16 {
		t.Errorf("%d vectors ran, want 16", len(vectors))
	}
}

// setUp is both of circl's contexts for a vector, with what makes the sender's
// fresh key in place of randomness.
func (v *rfc9180Vector) setUp(t *testing.T) (circlhpke.Sealer, circlhpke.Opener) {
	t.Helper()
	suite := circlhpke.NewSuite(v.KEM, v.KDF, v.AEAD)
	public, private := circlKeys(t, v.KEM, v.PkRm, v.SkRm)
	sender, errSender := suite.NewSender(public, v.Info)
	receiver, errReceiver := suite.NewReceiver(private, v.Info)
	if err := errors.Join(errSender, errReceiver); err != nil {
		t.Fatal(err)
	}
	var enc []byte
	var sealer circlhpke.Sealer
	var opener circlhpke.Opener
	switch v.Mode {
	case 0:
		enc, sealer, errSender = sender.Setup(bytes.NewReader(v.IkmE))
		opener, errReceiver = receiver.Setup(v.Enc)
	case 1:
		enc, sealer, errSender = sender.SetupPSK(bytes.NewReader(v.IkmE), v.PSK, v.PSKID)
		opener, errReceiver = receiver.SetupPSK(v.Enc, v.PSK, v.PSKID)
	default:
		t.Fatalf("mode %d", v.Mode)
	}
	if err := errors.Join(errSender, errReceiver); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(enc, v.Enc) {
		t.Errorf("the encapsulation is %x", enc)
	}
	return sealer, opener
}

// marshalled is the context as circl writes it down before the first message,
// for role 0, the sealer, or 1, the opener.
func (v *rfc9180Vector) marshalled(role byte) []byte {
	b := []byte{role}
	for _, id := range []uint16{uint16(v.KEM), uint16(v.KDF), uint16(v.AEAD)} {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	for _, part := range [][]byte{v.ExporterSecret, v.Key, v.BaseNonce, make([]byte, len(v.BaseNonce))} {
		b = append(append(b, byte(len(part))), part...)
	}
	return b
}

func (v *rfc9180Vector) checkSchedule(t *testing.T, sealer circlhpke.Sealer, opener circlhpke.Opener) {
	t.Helper()
	for role, context := range []circlhpke.Context{sealer, opener} {
		if err := mustBe(v.marshalled(byte(role)))(context.MarshalBinary()); err != nil {
			t.Errorf("the key schedule of role %d: %v", role, err)
		}
		for _, e := range v.Exports {
			if got := context.Export(e.Context, uint(e.L)); !bytes.Equal(got, e.Value) {
				t.Errorf("role %d exports %x for %x, want %x", role, got, e.Context, e.Value)
			}
		}
	}
}

func (v *rfc9180Vector) checkEncryptions(t *testing.T, sealer circlhpke.Sealer, opener circlhpke.Opener) {
	t.Helper()
	for i, e := range v.Encryptions {
		if err := mustBe(e.CT)(sealer.Seal(e.PT, e.AAD)); err != nil {
			t.Fatalf("sealing message %d: %v", i, err)
		}
		if err := mustBe(e.PT)(opener.Open(e.CT, e.AAD)); err != nil {
			t.Fatalf("opening message %d: %v", i, err)
		}
	}
}

const exportOnly = 0xFFFF

func TestRFC9180ContextsAreCirclsByteForByte(t *testing.T) {
	ran, encryptions, exports := 0, 0, 0
	for _, v := range rfc9180Vectors(t) {
		if v.AEAD == exportOnly {
			// circl has no such suite, and NewSuite would panic. The shared secret is tested above.
			if v.AEAD.IsValid() {
				t.Error("circl knows the export-only AEAD by now: test these vectors too")
			}
			continue
		}
		t.Run(v.name(), func(t *testing.T) {
			sealer, opener := v.setUp(t)
			v.checkSchedule(t, sealer, opener)
			v.checkEncryptions(t, sealer, opener)
		})
		ran, encryptions, exports = ran+1, encryptions+len(v.Encryptions), exports+len(v.Exports)
	}
	t.Logf("%d vectors ran, with %d encryptions and %d exports; 4 are export-only", ran, encryptions, exports)
	if ran != 12 || encryptions != 12*257 || exports != 12*3 {
		t.Error("want 12 vectors with 257 encryptions and 3 exports each")
	}
}

// openWithGo is the second opinion on a vector, which has base mode only.
func (v *rfc9180Vector) openWithGo(t *testing.T) *hpke.Recipient {
	t.Helper()
	private, errKey := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(v.SkRm)
	kdf, errKDF := hpke.NewKDF(uint16(v.KDF))
	aead, errAEAD := hpke.NewAEAD(uint16(v.AEAD))
	if err := errors.Join(errKey, errKDF, errAEAD); err != nil {
		t.Fatal(err)
	}
	recipient, err := hpke.NewRecipient(v.Enc, private, kdf, aead, v.Info)
	if err != nil {
		t.Fatal(err)
	}
	return recipient
}

func TestRFC9180BaseVectorsOpenWithGosHPKEToo(t *testing.T) {
	ran := 0
	for _, v := range rfc9180Vectors(t) {
		if v.Mode != 0 {
			continue
		}
		ran++
		recipient := v.openWithGo(t)
		for i, e := range v.Encryptions {
			if err := mustBe(e.PT)(recipient.Open(e.AAD, e.CT)); err != nil {
				t.Fatalf("%s: opening message %d: %v", v.name(), i, err)
			}
		}
		for _, e := range v.Exports {
			if err := mustBe(e.Value)(recipient.Export(string(e.Context), e.L)); err != nil {
				t.Errorf("%s: exporting for %x: %v", v.name(), e.Context, err)
			}
		}
	}
	t.Logf("%d vectors ran", ran)
	if ran != 8 {
		t.Errorf("%d vectors ran, want 8", ran)
	}
}

// hpkeKEM is a KEM of the channel in both implementations.
type hpkeKEM struct {
	name  string
	circl circlhpke.KEM
	std   hpke.KEM
}

var hpkeKEMs = []hpkeKEM{
	{"X25519", circlhpke.KEM_X25519_HKDF_SHA256, hpke.DHKEM(ecdh.X25519())},
	{"X-Wing", circlhpke.KEM_XWING, hpke.MLKEM768X25519()},
}

func (k hpkeKEM) suite() circlhpke.Suite {
	return circlhpke.NewSuite(k.circl, circlhpke.KDF_HKDF_SHA256, circlhpke.AEAD_ChaCha20Poly1305)
}

// hpkeKeys is one key pair, as both implementations have it.
type hpkeKeys struct {
	hpkeKEM
	circlPublic  kem.PublicKey
	circlPrivate kem.PrivateKey
	stdPrivate   hpke.PrivateKey
}

// keys is the key pair of a private key's 32 bytes; both must publish the same.
func (k hpkeKEM) keys(t *testing.T, private []byte) hpkeKeys {
	t.Helper()
	std, err := k.std.NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pk, sk := circlKeys(t, k.circl, std.PublicKey().Bytes(), private)
	if !sk.Public().Equal(pk) {
		t.Fatalf("%s: another public key for %x", k.name, private)
	}
	return hpkeKeys{k, pk, sk, std}
}

// hpkeEnds is a sender of one implementation and a receiver of the other.
type hpkeEnds struct {
	seal, open     func(text, aad []byte) ([]byte, error)
	sent, received func(context []byte, size int) ([]byte, error)
}

func circlExport(c circlhpke.Context) func([]byte, int) ([]byte, error) {
	return func(context []byte, size int) ([]byte, error) { return c.Export(context, uint(size)), nil }
}

// circlToGo and goToCircl also turn Go's order of arguments into circl's: both
// compile either way round.
func (k hpkeKeys) circlToGo(info []byte) (e hpkeEnds, err error) {
	enc, sealer, err := k.circlSender(k.circlPublic, info)
	if err != nil {
		return e, err
	}
	recipient, err := hpke.NewRecipient(enc, k.stdPrivate, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info)
	if err != nil {
		return e, err
	}
	return hpkeEnds{
		seal:     sealer.Seal,
		open:     func(sealed, aad []byte) ([]byte, error) { return recipient.Open(aad, sealed) },
		sent:     circlExport(sealer),
		received: func(context []byte, size int) ([]byte, error) { return recipient.Export(string(context), size) },
	}, nil
}

func (k hpkeKeys) goToCircl(info []byte) (e hpkeEnds, err error) {
	enc, sender, err := hpke.NewSender(k.stdPrivate.PublicKey(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info)
	if err != nil {
		return e, err
	}
	opener, err := k.circlReceiver(enc, info)
	if err != nil {
		return e, err
	}
	return hpkeEnds{
		seal:     func(text, aad []byte) ([]byte, error) { return sender.Seal(aad, text) },
		open:     opener.Open,
		sent:     func(context []byte, size int) ([]byte, error) { return sender.Export(string(context), size) },
		received: circlExport(opener),
	}, nil
}

func (k hpkeKeys) circlSender(to kem.PublicKey, info []byte) (enc []byte, sealer circlhpke.Sealer, err error) {
	sender, err := k.suite().NewSender(to, info)
	if err != nil {
		return nil, nil, err
	}
	return sender.Setup(rand.Reader)
}

func (k hpkeKeys) circlReceiver(enc, info []byte) (circlhpke.Opener, error) {
	receiver, err := k.suite().NewReceiver(k.circlPrivate, info)
	if err != nil {
		return nil, err
	}
	return receiver.Setup(enc)
}

// anyBytes is up to limit random bytes.
func anyBytes(random *mathrand.Rand, limit int) []byte {
	b := make([]byte, random.IntN(limit+1))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// carry sends one message, after the same with one bit changed: a refusal must
// not move the receiver on.
func (e hpkeEnds) carry(random *mathrand.Rand) error {
	text, aad := anyBytes(random, 1000), anyBytes(random, 100)
	sealed, err := e.seal(text, aad)
	if err != nil {
		return err
	}
	spoiled := bytes.Clone(sealed)
	spoiled[random.IntN(len(spoiled))] ^= 1 << random.IntN(8)
	if _, err := e.open(spoiled, aad); err == nil {
		return errors.New("a changed message opens")
	}
	return mustBe(text)(e.open(sealed, aad))
}

func (e hpkeEnds) export(random *mathrand.Rand) error {
	context, size := anyBytes(random, 100), 1+random.IntN(300)
	sent, err := e.sent(context, size)
	if err != nil {
		return err
	}
	if len(sent) != size {
		return fmt.Errorf("exported %d bytes, want %d", len(sent), size)
	}
	return mustBe(sent)(e.received(context, size))
}

// converse is a few messages and exports.
func (e hpkeEnds) converse(random *mathrand.Rand) error {
	for range 1 + random.IntN(3) {
		if err := errors.Join(e.carry(random), e.export(random)); err != nil {
			return err
		}
	}
	return nil
}

func TestHPKEOfCirclAndOfGoReadEachOther(t *testing.T) {
	for _, k := range hpkeKEMs {
		for way, setUp := range map[string]func(hpkeKeys, []byte) (hpkeEnds, error){
			"circl to Go": hpkeKeys.circlToGo, "Go to circl": hpkeKeys.goToCircl,
		} {
			t.Run(k.name+" "+way, func(t *testing.T) {
				t.Parallel()
				var seed, private [32]byte
				_, _ = rand.Read(seed[:])
				source := mathrand.NewChaCha8(seed)
				random := mathrand.New(source)
				for round := range hpkeRounds {
					_, _ = source.Read(private[:])
					e, err := setUp(k.keys(t, private[:]), anyBytes(random, 100))
					if err == nil {
						err = e.converse(random)
					}
					if err != nil {
						t.Fatalf("round %d of seed %x: %v", round, seed, err)
					}
				}
				t.Logf("%d rounds ran", hpkeRounds)
			})
		}
	}
}

// Nothing on the wire depends on the difference: the seed of the channel's
// fresh key stays with the client.
func TestHPKEKeysAreDerivedAlikeForX25519ButNotForXWing(t *testing.T) {
	for _, k := range hpkeKEMs {
		ikm := bytes.Repeat([]byte{7}, 32)
		std, err := k.std.DeriveKeyPair(ikm)
		if err != nil {
			t.Fatal(err)
		}
		public, private := k.circl.Scheme().DeriveKeyPair(ikm)
		b, err := public.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if alike := bytes.Equal(b, std.PublicKey().Bytes()); alike != (k.name == "X25519") {
			t.Errorf("%s: derived alike: %v", k.name, alike)
		}
		if k.name == "X25519" {
			continue
		}
		if err := mustBe(sha3.SumSHAKE256(ikm, 32))(private.MarshalBinary()); err != nil {
			t.Errorf("%s: circl's private key: %v", k.name, err)
		}
	}
}

// lowOrderX25519 is every encoding of a point of order 1, 2, 4 or 8 on the curve
// or its twist: five values, two of them also beyond the prime, and each with
// the bit that RFC 7748 has ignored.
func lowOrderX25519(t *testing.T) (points [][]byte) {
	t.Helper()
	for _, text := range []string{
		strings.Repeat("00", 32),
		"01" + strings.Repeat("00", 31),
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ec" + strings.Repeat("ff", 30) + "7f",
		"ed" + strings.Repeat("ff", 30) + "7f",
		"ee" + strings.Repeat("ff", 30) + "7f",
	} {
		point := unhex(t, text)
		points = append(points, point, withTopBit(point))
	}
	return points
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withTopBit(point []byte) []byte {
	b := bytes.Clone(point)
	b[31] ^= 0x80
	return b
}

// withTail is b with its end replaced: X25519's part is the last of an X-Wing
// key, and of an encapsulation.
func withTail(b, tail []byte) []byte {
	return append(bytes.Clone(b[:len(b)-len(tail)]), tail...)
}

// sharesTaken is who encapsulates to a key with this X25519 share, and who
// decapsulates what ends with it.
type sharesTaken struct{ circlTo, goTo, circlFrom, goFrom bool }

func (k hpkeKeys) take(t *testing.T, share []byte) (taken sharesTaken) {
	t.Helper()
	key := withTail(k.stdPrivate.PublicKey().Bytes(), share)
	enc, _, err := k.circlSender(k.circlPublic, nil)
	if err != nil {
		t.Fatal(err)
	}
	enc = withTail(enc, share)
	if public, err := k.circl.Scheme().UnmarshalBinaryPublicKey(key); err == nil {
		_, _, err = k.circlSender(public, nil)
		taken.circlTo = err == nil
	}
	if public, err := k.std.NewPublicKey(key); err == nil {
		_, _, err = hpke.NewSender(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
		taken.goTo = err == nil
	}
	_, err = k.circlReceiver(enc, nil)
	taken.circlFrom = err == nil
	_, err = hpke.NewRecipient(enc, k.stdPrivate, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
	taken.goFrom = err == nil
	return taken
}

// This is the one divergence between circl and Go: see checkX25519 of
// wire/channel, which is there because of it.
func TestHPKESharesOfLowOrderAreTakenByCirclsXWingAlone(t *testing.T) {
	honest, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all := sharesTaken{true, true, true, true}
	for _, k := range hpkeKEMs {
		keys := k.keys(t, bytes.Repeat([]byte{9}, 32))
		want := sharesTaken{}
		if k.name == "X-Wing" {
			want = sharesTaken{circlTo: true, circlFrom: true}
		}
		for _, point := range lowOrderX25519(t) {
			if taken := keys.take(t, point); taken != want {
				t.Errorf("%s: %x is taken as %+v, want %+v", k.name, point, taken, want)
			}
		}
		if taken := keys.take(t, honest.PublicKey().Bytes()); taken != all {
			t.Errorf("%s: an honest share is taken as %+v", k.name, taken)
		}
	}
}

// daemonMeets is what a real daemon says to a msg1, right but for its key's
// X25519 share.
func (e *ends) daemonMeets(t *testing.T, share []byte) error {
	t.Helper()
	c, err := newSecond(secondConfig{handleHash: [32]byte{2}, rid: e.rid, secret: e.secret.Reveal(), opens: e.recipient})
	if err != nil {
		t.Fatal(err)
	}
	msg1 := c.msg1()
	ek, commitment := withTail(msg1[2:2+1216], share), msg1[2+1216:][:32]
	up, down := newMemoryPipe(), newMemoryPipe()
	_, _ = up.Write(slices.Concat(msg1[:2], ek, commitment, mac(c.mac1Key, c.th0[:], ek, commitment)))
	up.close()
	return (<-e.serve(t, memoryEnd{up, down})).err
}

// Where the X25519 shares of msg2 begin (§5.3).
const (
	encRShare = 2 + 4
	encShare  = 2 + 4 + 32 + 4 + 1088
)

// clientMeets is what a real client says to a real daemon's msg2 with one share
// changed on the way.
func (e *ends) clientMeets(t *testing.T, at int, share []byte) error {
	t.Helper()
	up, fromDaemon, toClient := newMemoryPipe(), newMemoryPipe(), newMemoryPipe()
	daemon := e.serve(t, memoryEnd{up, fromDaemon})
	go func() {
		msg2 := make([]byte, channel.Msg2Size(channel.Sealed))
		if _, err := io.ReadFull(fromDaemon, msg2); err == nil {
			copy(msg2[at:], share)
			_, _ = toClient.Write(msg2)
		}
	}()
	_, err := channel.Client(t.Context(), memoryEnd{toClient, up}, channel.ClientConfig{
		Mode: channel.Sealed, RID: e.rid, HandleHash: [32]byte{2}, Fingerprint: channel.Fingerprint(e.public()),
		Recipient: e.opens, Keys: channel.NewKeys(e.secret), Signer: wire.SigningKeyOf(e.signer), Rand: rand.Reader,
	})
	<-daemon
	return err
}

func TestKeysOfLowOrderAreRefusedByTheChannel(t *testing.T) {
	const weak = "low-order"
	e := newEnds(t)
	for _, point := range lowOrderX25519(t) {
		if err := e.daemonMeets(t, point); err == nil || !strings.Contains(err.Error(), weak) {
			t.Errorf("ek with %x: %v", point, err)
		}
		if err := e.clientMeets(t, encShare, point); err == nil || !strings.Contains(err.Error(), weak) {
			t.Errorf("enc with %x: %v", point, err)
		}
		// circl itself refuses these where there is no X-Wing.
		if err := e.clientMeets(t, encRShare, point); !errors.Is(err, circlhpke.ErrInvalidKEMSharedSecret) {
			t.Errorf("encR of %x: %v", point, err)
		}
	}
	// The daemon takes an honest share, and only then misses FINISHED.
	honest := e.recipient.PublicKey().Bytes()
	if err := e.daemonMeets(t, honest); !errors.Is(err, io.EOF) {
		t.Errorf("ek with an honest share: %v", err)
	}
}

func TestHPKEOpensNothingAfterAChangeOfTheEncapsulation(t *testing.T) {
	for _, k := range hpkeKEMs {
		keys := k.keys(t, bytes.Repeat([]byte{5}, 32))
		enc, sealer, err := keys.circlSender(keys.circlPublic, nil)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := sealer.Seal([]byte("text"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(enc); at += 31 {
			changed := bytes.Clone(enc)
			changed[at] ^= 1
			opener, err := keys.circlReceiver(changed, nil)
			if err != nil {
				t.Fatalf("%s: byte %d: the change shows before a message is opened: %v", k.name, at, err)
			}
			if _, err := opener.Open(sealed, nil); err == nil {
				t.Errorf("%s: byte %d changed, and the message opens", k.name, at)
			}
		}
	}
}

// setCoefficient writes one of the 768 numbers of twelve bits that an ML-KEM-768
// key begins with.
func setCoefficient(key []byte, i int, value uint16) {
	at := key[i/2*3:]
	if i%2 == 0 {
		at[0], at[1] = byte(value), at[1]&0xf0|byte(value>>8)
	} else {
		at[1], at[2] = at[1]&0x0f|byte(value<<4), byte(value>>4)
	}
}

// encapsulationTaken says who takes an ML-KEM-768 key: both implementations of
// it, and both of the X-Wing around it.
func encapsulationTaken(key []byte) (taken [4]bool) {
	for i, side := range mlkemSides {
		_, _, err := side.encapsulate(key, make([]byte, 32))
		taken[i] = err == nil
	}
	hybrid := append(bytes.Clone(key), append([]byte{9}, make([]byte, 31)...)...) // X25519's base point
	_, err := circlhpke.KEM_XWING.Scheme().UnmarshalBinaryPublicKey(hybrid)
	taken[2] = err == nil
	_, err = hpke.MLKEM768X25519().NewPublicKey(hybrid)
	taken[3] = err == nil
	return taken
}

func TestMLKEMKeysAreReducedAndOfOneSize(t *testing.T) {
	const prime = 3329
	all, none := [4]bool{true, true, true, true}, [4]bool{}
	honest, _, err := goGenerate(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 255, 256, 511, 512, 766, 767} {
		for value, want := range map[uint16][4]bool{0: all, prime - 1: all, prime: none, prime + 1: none, 4095: none} {
			key := bytes.Clone(honest)
			setCoefficient(key, i, value)
			if taken := encapsulationTaken(key); taken != want {
				t.Errorf("coefficient %d of %d: taken %v, want %v", i, value, taken, want)
			}
		}
	}
	for _, size := range []int{0, 1, 32, 1152, 1183, 1185, 1568} {
		key := append(bytes.Clone(honest), make([]byte, 400)...)[:size]
		if taken := encapsulationTaken(key); taken != none {
			t.Errorf("a key of %d bytes: taken %v", size, taken)
		}
	}
	if taken := encapsulationTaken(honest); taken != all {
		t.Errorf("an honest key: taken %v", taken)
	}
}

func TestMLKEMKeysOfAChangedCiphertextAreOthersWithoutAnError(t *testing.T) {
	seed := sha512.Sum512([]byte("implicit rejection"))
	public, _, err := goGenerate(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	shared, ciphertext, err := goEncapsulate(public, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range mlkemSides {
		if err := mustBe(shared)(side.decapsulate(seed[:], ciphertext)); err != nil {
			t.Errorf("%s: an honest ciphertext: %v", side.name, err)
		}
		for at := 0; at < len(ciphertext); at += 17 {
			changed := bytes.Clone(ciphertext)
			changed[at] ^= 1
			// FIPS 203, algorithm 18: J(z || c), z the second half of the seed.
			rejected := sha3.SumSHAKE256(slices.Concat(seed[32:], changed), 32)
			if err := mustBe(rejected)(side.decapsulate(seed[:], changed)); err != nil {
				t.Errorf("%s: byte %d changed: %v", side.name, at, err)
			}
		}
		for _, size := range []int{0, 1, 1087, 1089, 1120} {
			if _, err := side.decapsulate(seed[:], append(bytes.Clone(ciphertext), make([]byte, 32)...)[:size]); err == nil {
				t.Errorf("%s: a ciphertext of %d bytes is taken", side.name, size)
			}
		}
	}
}

// edwardsHalf is what an Ed25519 key is, and R of a signature: a multiple of the
// base point, plus a point of small order that honest ones do not have.
type edwardsHalf struct {
	scalar  *edwards25519.Scalar
	torsion *edwards25519.Point
	encoded []byte
}

// honestHalf is the multiple that a name stands for.
func honestHalf(t *testing.T, name string) edwardsHalf {
	t.Helper()
	uniform := sha512.Sum512([]byte(name))
	scalar, err := edwards25519.NewScalar().SetUniformBytes(uniform[:])
	if err != nil {
		t.Fatal(err)
	}
	point := new(edwards25519.Point).ScalarBaseMult(scalar)
	return edwardsHalf{scalar, edwards25519.NewIdentityPoint(), point.Bytes()}
}

// smallHalf is a point of small order alone, in the encoding given.
func smallHalf(t *testing.T, encoded []byte) edwardsHalf {
	t.Helper()
	point, err := new(edwards25519.Point).SetBytes(encoded)
	if err != nil {
		t.Fatalf("%x: %v", encoded, err)
	}
	return edwardsHalf{edwards25519.NewScalar(), point, encoded}
}

func (h edwardsHalf) plus(small edwardsHalf) edwardsHalf {
	point := new(edwards25519.Point).ScalarBaseMult(h.scalar)
	point.Add(point, small.torsion)
	return edwardsHalf{h.scalar, small.torsion, point.Bytes()}
}

// sign makes a signature over the first message for which the points of small
// order cancel, or do not: multiplied by the cofactor the equation holds either
// way, without it only where they do.
func (h edwardsHalf) sign(t *testing.T, r edwardsHalf, cancel bool) (message, signature []byte) {
	t.Helper()
	for i := range 1000 {
		message = fmt.Appendf(nil, "message %d", i)
		digest := sha512.Sum512(slices.Concat(r.encoded, h.encoded, message))
		k, err := edwards25519.NewScalar().SetUniformBytes(digest[:])
		if err != nil {
			t.Fatal(err)
		}
		left := new(edwards25519.Point).ScalarMult(k, h.torsion)
		left.Add(left, r.torsion)
		if cancelled := left.Equal(edwards25519.NewIdentityPoint()) == 1; cancelled == cancel {
			s := edwards25519.NewScalar().MultiplyAdd(k, h.scalar, r.scalar)
			return message, append(bytes.Clone(r.encoded), s.Bytes()...)
		}
	}
	t.Fatal("there is no such message")
	return nil, nil
}

// smallEdwards is every encoding of the eight points of small order, those that
// are not canonical after the others.
var smallEdwards = []struct {
	order     int
	encoded   string
	canonical bool
}{
	{1, "01" + zeros30 + "00", true},
	{2, "ec" + ones30 + "7f", true},
	{4, "00" + zeros30 + "00", true},
	{4, "00" + zeros30 + "80", true},
	{8, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", true},
	{8, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", true},
	{8, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", true},
	{8, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", true},
	{1, "01" + zeros30 + "80", false}, // x = 0 has no other sign
	{2, "ec" + ones30 + "ff", false},
	{1, "ee" + ones30 + "7f", false}, // y = 1 + p
	{1, "ee" + ones30 + "ff", false},
	{4, "ed" + ones30 + "7f", false}, // y = p
	{4, "ed" + ones30 + "ff", false},
}

const (
	zeros30 = "000000000000000000000000000000000000000000000000000000000000"
	ones30  = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
)

// Anybody can sign for a key of small order, by crypto/ed25519 too: it does not
// look at keys. This is why a recipient's are looked at when they are taken in.
func TestEd25519KeysOfSmallOrderVerifyForgeriesAndCannotBeRegistered(t *testing.T) {
	r := honestHalf(t, "R")
	for _, small := range smallEdwards {
		key := smallHalf(t, unhex(t, small.encoded))
		message, signature := key.sign(t, r, true)
		if !ed25519.Verify(key.encoded, message, signature) {
			t.Errorf("%s: crypto/ed25519 has learnt to refuse it", small.encoded)
		}
		if small.order > 1 {
			if message, signature = key.sign(t, r, false); ed25519.Verify(key.encoded, message, signature) {
				t.Errorf("%s: verified with the cofactor", small.encoded)
			}
		}
		if canonical := bytes.Equal(key.torsion.Bytes(), key.encoded); canonical != small.canonical {
			t.Errorf("%s: canonical: %v", small.encoded, canonical)
		}
		if err := handle.CheckEd25519(key.encoded); !errors.Is(err, handle.ErrRecipientKey) {
			t.Errorf("%s can be registered: %v", small.encoded, err)
		}
	}
}

func TestEd25519KeysAndSignaturesWithAPartOfSmallOrderAreJudgedWithoutTheCofactor(t *testing.T) {
	honest, r := honestHalf(t, "key"), honestHalf(t, "R")
	eighth := smallHalf(t, unhex(t, smallEdwards[4].encoded))
	identity := smallHalf(t, unhex(t, smallEdwards[0].encoded))
	for _, c := range []struct {
		name       string
		key, r     edwardsHalf
		cancel     bool
		verifies   bool
		registered bool
	}{
		{"all honest", honest, r, true, true, true},
		{"key with a part, cancelled", honest.plus(eighth), r, true, true, true},
		{"key with a part, not cancelled", honest.plus(eighth), r, false, false, true},
		{"R with a part", honest, r.plus(eighth), false, false, true},
		{"both with a part, cancelled", honest.plus(eighth), r.plus(eighth), true, true, true},
		{"both with a part, not cancelled", honest.plus(eighth), r.plus(eighth), false, false, true},
		{"R the identity", honest, identity, true, true, true},
		{"R the identity, its sign wrong", honest, smallHalf(t, unhex(t, smallEdwards[8].encoded)), true, false, true},
		{"R the identity, beyond the prime", honest, smallHalf(t, unhex(t, smallEdwards[10].encoded)), true, false, true},
		{"key and R the identity", identity, identity, true, true, false},
		{"key the identity beyond the prime", smallHalf(t, unhex(t, smallEdwards[10].encoded)), identity, true, true, false},
	} {
		message, signature := c.key.sign(t, c.r, c.cancel)
		if verifies := ed25519.Verify(c.key.encoded, message, signature); verifies != c.verifies {
			t.Errorf("%s: verifies: %v, want %v", c.name, verifies, c.verifies)
		}
		if err := handle.CheckEd25519(c.key.encoded); (err == nil) != c.registered {
			t.Errorf("%s: registering: %v, want it registered: %v", c.name, err, c.registered)
		}
	}
}

// reversed is between the order of big.Int and of Ed25519.
func reversed(b []byte) []byte {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return b
}

func TestEd25519SignaturesHaveOneSForAllKeys(t *testing.T) {
	order, ok := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	if !ok {
		t.Fatal("the order of the base point")
	}
	identity := smallHalf(t, unhex(t, smallEdwards[0].encoded))
	for name, key := range map[string]edwardsHalf{"an honest key": honestHalf(t, "key"), "the identity, S = 0": identity} {
		message, signature := key.sign(t, identity, true)
		if !ed25519.Verify(key.encoded, message, signature) {
			t.Errorf("%s: the signature does not verify", name)
		}
		s := new(big.Int).SetBytes(reversed(signature[32:]))
		for times := 1; ; times++ {
			if s.Add(s, order).BitLen() > 256 {
				break
			}
			if ed25519.Verify(key.encoded, message, withTail(signature, reversed(s.FillBytes(make([]byte, 32))))) {
				t.Errorf("%s: S + %d × the order verifies", name, times)
			}
		}
	}
}

func TestEd25519KeysBeyondThePrimeCannotBeRegistered(t *testing.T) {
	points := 0
	for last := 0xed; last <= 0xff; last++ {
		for _, top := range []string{"7f", "ff"} {
			encoded := unhex(t, fmt.Sprintf("%02x", last)+ones30+top)
			if _, err := new(edwards25519.Point).SetBytes(encoded); err == nil {
				points++
			}
			if err := handle.CheckEd25519(encoded); !errors.Is(err, handle.ErrRecipientKey) {
				t.Errorf("%x can be registered: %v", encoded, err)
			}
		}
	}
	t.Logf("%d of the 38 encodings decode", points)
}

func TestEd25519KeysThatAreNoneVerifyNothing(t *testing.T) {
	key := honestHalf(t, "key")
	message, signature := key.sign(t, honestHalf(t, "R"), true)
	none := append([]byte{2}, make([]byte, 31)...) // no point has y = 2
	if _, err := new(edwards25519.Point).SetBytes(none); err == nil {
		t.Fatal("2 is the y of a point")
	}
	if ed25519.Verify(none, message, signature) || handle.CheckEd25519(none) == nil {
		t.Error("a key that is not a point is taken")
	}
	for _, size := range []int{0, 32, 63} {
		if ed25519.Verify(key.encoded, message, signature[:size]) {
			t.Errorf("a signature of %d bytes verifies", size)
		}
	}
	if ed25519.Verify(key.encoded, message, append(bytes.Clone(signature), 0)) {
		t.Error("a signature of 65 bytes verifies")
	}
	for _, wrong := range [][]byte{nil, key.encoded[:31], append(bytes.Clone(key.encoded), 0)} {
		if !verifyPanics(wrong, message, signature) {
			t.Errorf("a key of %d bytes does not panic: nothing here relies on it, every key is an array's or a fixed part's", len(wrong))
		}
		if handle.CheckEd25519(wrong) == nil {
			t.Errorf("a key of %d bytes can be registered", len(wrong))
		}
	}
}

func verifyPanics(key, message, signature []byte) (panics bool) {
	defer func() { panics = recover() != nil }()
	ed25519.Verify(key, message, signature)
	return false
}
