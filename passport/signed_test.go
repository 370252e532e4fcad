package passport

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"openscope/bench/vectors"
)

var (
	testKey     = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	testSubject = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey)
)

func testPassport() Passport {
	g := logs()
	g.Limits = Limits{MaxCalls: 5, MaxOutput: 6, MaxSessionOutput: 7, Until: time.Unix(1_800_000_000, 0).UTC()}
	return Passport{
		Session: [16]byte{1}, Daemon: [32]byte{2}, Issuer: "you", Recipient: "vendor-b", Subject: testSubject, Serial: 3,
		NotBefore: time.Unix(1_799_000_000, 0).UTC(), Expires: time.Unix(1_799_001_800, 0).UTC(), Grant: g,
	}
}

func signed(t testing.TB, p Passport) Signed {
	t.Helper()
	s, err := Sign(testKey, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASignedPassportSaysWhatWasSigned(t *testing.T) {
	want := testPassport()
	got, err := Verify(signed(t, want), testKey.Public().(ed25519.PublicKey))
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := got.CheckFor(want.Session, testSubject); err != nil {
		t.Error(err)
	}
	if got.CheckFor([16]byte{9}, testSubject) == nil || got.CheckFor(want.Session, testKey.Public().(ed25519.PublicKey)) == nil {
		t.Error("it passes for another session, or another key")
	}
}

func TestEveryBitOfAPassportCounts(t *testing.T) {
	s := signed(t, testPassport())
	public := testKey.Public().(ed25519.PublicKey)
	for bit := range 8 * len(s) {
		s[bit/8] ^= 1 << (bit % 8)
		if _, err := Verify(s, public); !errors.Is(err, ErrForged) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
		s[bit/8] ^= 1 << (bit % 8)
	}
	for n := range len(s) {
		if _, err := Verify(s[:n], public); !errors.Is(err, ErrForged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Verify(s, testSubject); !errors.Is(err, ErrForged) {
		t.Errorf("under another key: %v", err)
	}
	if _, err := Verify(s, nil); !errors.Is(err, ErrForged) {
		t.Errorf("under no key: %v", err)
	}
}

// resigned signs a body as it is: what a daemon with a bug, or another
// implementation, could send.
func resigned(body []byte) Signed {
	return append(Signed(ed25519.Sign(testKey, signedBytes(body))), body...)
}

func TestThereIsOneEncodingOfAPassport(t *testing.T) {
	body := signed(t, testPassport())[ed25519.SignatureSize:]
	var fields map[uint64]any
	if err := cbor.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(map[uint64]any)) []byte {
		changed := make(map[uint64]any)
		for k, v := range fields {
			changed[k] = v
		}
		edit(changed)
		b, err := encoder.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// 0xae begins a map of 14 pairs, 0x01 is the first key, 0x01 its value.
	if !bytes.HasPrefix(body, []byte{0xae, 0x01, 0x01}) {
		t.Fatalf("the layout has changed: % x", body[:3])
	}
	for name, bad := range map[string][]byte{
		"an overlong integer":      append([]byte{0xae, 0x01, 0x18, 0x01}, body[3:]...),
		"an overlong key":          append([]byte{0xae, 0x18, 0x01, 0x01}, body[3:]...),
		"an indefinite map":        append(append([]byte{0xbf}, body[1:]...), 0xff),
		"something after it":       append(bytes.Clone(body), 0),
		"another version":          edited(func(m map[uint64]any) { m[1] = uint64(2) }),
		"an unknown field":         edited(func(m map[uint64]any) { m[99] = true }),
		"a missing field":          edited(func(m map[uint64]any) { delete(m, 9) }),
		"a short session":          edited(func(m map[uint64]any) { m[2] = []byte{1} }),
		"a name with an escape":    edited(func(m map[uint64]any) { m[4] = "you\x1b[2J" }),
		"a name turned around":     edited(func(m map[uint64]any) { m[5] = "vendor\u202eb" }),
		"a verb of the wrong type": edited(func(m map[uint64]any) { m[10] = "all" }),
		"nothing":                  {},
	} {
		if p, err := Verify(resigned(bad), testKey.Public().(ed25519.PublicKey)); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if _, err := Verify(resigned(edited(func(map[uint64]any) {})), testKey.Public().(ed25519.PublicKey)); err != nil {
		t.Errorf("the edit itself: %v", err)
	}
}

func TestAPassportFitsIntoARecord(t *testing.T) {
	p := testPassport()
	for i := range 128 {
		v := p.Grant.Verbs[0]
		v.Name, v.Summary = fmt.Sprintf("app.verb%d", i), strings.Repeat("long ", 60)
		p.Grant.Verbs = append(p.Grant.Verbs, v)
	}
	if _, err := Sign(testKey, p); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a passport of 128 verbs: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	for _, s := range vectors.Load(f, root, "passport").Inputs(f, "signed", true) {
		f.Add(s[min(len(s), ed25519.SignatureSize):])
	}
	f.Add([]byte(signed(f, testPassport()))[ed25519.SignatureSize:])
	f.Add([]byte(signed(f, emptyPassport()))[ed25519.SignatureSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := Verify(resigned(body), testKey.Public().(ed25519.PublicKey))
		vectors.HoldFuzzed(t, []byte(resigned(body)), func(s []byte) { _, _ = Verify(s, testKey.Public().(ed25519.PublicKey)) })
		if err != nil {
			return
		}
		again, err := Sign(testKey, *p)
		if err != nil || !bytes.Equal(again, resigned(body)) {
			t.Fatalf("accepted, and written differently: %x, %v", again, err)
		}
	})
}
