package handle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/wire"
)

func testHandles() map[string]Handle {
	one := []wire.Relay{{Address: "127.0.0.1:4433"}}
	three := []wire.Relay{
		{Address: "relay.example.com:4433", Pin: &wire.Pin{1, 2}}, {Address: "[2001:db8::1]:65535"}, {Address: strings.Repeat("a", 95) + ":4433"},
	}
	base := Handle{RID: wire.RendezvousID{1}, Fingerprint: [32]byte{2}, HardLimit: time.Unix(1_800_000_000, 0).UTC()}
	sealed, bearer, long := base, base, base
	sealed.Sealed, sealed.Relays, sealed.Enc, sealed.Box = true, one, [32]byte{3}, [48]byte{4}
	bearer.Relays, bearer.Secret = one, wire.SecretOf([32]byte{5})
	long.Sealed, long.Relays = true, three
	return map[string]Handle{"sealed": sealed, "bearer": bearer, "three relays": long}
}

// same compares what the secrets conceal, and the rest.
func same(a, b Handle) bool {
	equal := bytes.Equal(a.Secret.Reveal(), b.Secret.Reveal())
	a.Secret, b.Secret = wire.Secret{}, wire.Secret{}
	return equal && reflect.DeepEqual(a, b)
}

func TestAHandleReadsBackAsItself(t *testing.T) {
	for name, h := range testHandles() {
		text := h.Text()
		got, err := Parse(text)
		if err != nil || !same(got, h) || got.Text() != text || got.Hash() != h.Hash() {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if len(text) > MaxText {
			t.Errorf("%s: %d characters", name, len(text))
		}
		for _, pasted := range []string{
			strings.ToUpper(text), " " + text + "\n", `"` + text + `"`, "'" + text + "'", text[:40] + "\n  " + text[40:],
		} {
			if got, err := Parse(pasted); err != nil || got.Text() != text {
				t.Errorf("%s pasted as %.60q…: %v", name, pasted, err)
			}
		}
	}
}

func TestASealedHandleHasAboutThreeHundredCharacters(t *testing.T) {
	h := testHandles()["sealed"]
	h.Relays = []wire.Relay{{Address: "relay.example.com:4433", Pin: &wire.Pin{}}}
	if n := len(h.Text()); n < 250 || n > 350 {
		t.Errorf("%d characters", n)
	}
}

func TestAChangedCharacterIsNoticed(t *testing.T) {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	for name, h := range testHandles() {
		text := h.Text()
		for i := range text {
			for _, c := range []byte(alphabet + "ilou!") {
				if text[i] == c {
					continue
				}
				changed := text[:i] + string(c) + text[i+1:]
				if got, err := Parse(changed); !errors.Is(err, ErrHandle) {
					t.Fatalf("%s: character %d changed to %c: %+v, %v", name, i, c, got, err)
				}
			}
		}
		for n := range len(text) {
			if _, err := Parse(text[:n]); !errors.Is(err, ErrHandle) {
				t.Fatalf("%s: cut to %d characters: %v", name, n, err)
			}
		}
	}
}

func TestMalformedHandlesAreRefused(t *testing.T) {
	h := testHandles()["sealed"]
	payload := func(edit func([]byte) []byte) string {
		b := append(append(h.Header(), h.Enc[:]...), h.Box[:]...)
		return wire.EncodeText(sealedPrefix, edit(b))
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	for name, text := range map[string]string{
		"empty":                  "",
		"a prefix":               "osh1s",
		"another prefix":         "osk1" + h.Text()[5:],
		"a bearer's prefix":      wire.EncodeText(bearerPrefix, append(append(h.Header(), h.Enc[:]...), h.Box[:]...)),
		"version 2":              payload(set(0, 2)),
		"unknown flags":          payload(set(1, 7)),
		"no relay":               payload(set(54, 0)),
		"four relays":            payload(set(54, 4)),
		"an address too long":    payload(set(55, 101)),
		"an upper-case address":  payload(set(56, 'R')),
		"an address with a path": payload(set(56, '/')),
		"a pin flag of 2":        payload(set(56+len("127.0.0.1:4433"), 2)),
		"one byte more":          payload(func(b []byte) []byte { return append(b, 0) }),
		"one byte less":          payload(func(b []byte) []byte { return b[:len(b)-1] }),
		"too long":               "osh1s" + strings.Repeat("0", 5000),
	} {
		if got, err := Parse(text); !errors.Is(err, ErrHandle) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, address := range []string{"", ":1", "host", "host:", "host:0", "host:65536", "host:01", "host:-1", "ho st:1", "Host:1", "host\n:1", strings.Repeat("a", 100) + ":1"} {
		if wire.CheckAddress(address) == nil {
			t.Errorf("the address %q passes", address)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range vectors.Load(f, root, "handle").Inputs(f, "text", false) {
		f.Add(string(text))
	}
	for _, h := range testHandles() {
		f.Add(h.Text())
	}
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzed(t, text, func(s string) { _, _ = Parse(s) })
		h, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrHandle) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := Parse(h.Text())
		if err != nil || !same(again, h) {
			t.Fatalf("%q reads as %+v, and back as %+v, %v", text, h, again, err)
		}
	})
}

func TestRecipientKeysReadBack(t *testing.T) {
	id, err := NewRecipientIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := id.Public()
	if len(public.Text()) != 115 || !strings.HasPrefix(public.Text(), "osk1") {
		t.Errorf("a public key is %q, %d characters", public.Text(), len(public.Text()))
	}
	got, err := ParseRecipientKey(public.Text())
	if err != nil || !got.X25519.Equal(public.X25519) || !got.Ed25519.Equal(public.Ed25519) {
		t.Errorf("%+v, %v", got, err)
	}
	again, err := ParseRecipientIdentity(id.Text())
	if err != nil || again.Public().Text() != public.Text() {
		t.Errorf("the private key does not read back: %v", err)
	}
	if !strings.HasPrefix(id.Text(), "OPENSCOPE-SECRET-KEY-1") {
		t.Error("a private key does not say that it is one")
	}
	if _, err := NewRecipientIdentity(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("an identity was drawn from 31 bytes")
	}
}

func TestARecipientsKeyIsDrawnWholeOrNotAtAll(t *testing.T) {
	for n := range 32 {
		if id, err := NewRecipientIdentity(bytes.NewReader(make([]byte, n))); err == nil || id != nil {
			t.Errorf("a key of %d random bytes: %v", n, err)
		}
	}
	if _, err := NewRecipientIdentity(bytes.NewReader(make([]byte, 32))); err != nil {
		t.Error(err)
	}
}

func TestWeakRecipientKeysAreRefused(t *testing.T) {
	id, err := NewRecipientIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := id.Public()
	key := func(x, ed string) string {
		payload := append([]byte{1}, good.X25519.Bytes()...)
		payload = append(payload, good.Ed25519...)
		for at, text := range map[int]string{1: x, 33: ed} {
			b, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			copy(payload[at:], b)
		}
		return wire.EncodeText(publicPrefix, payload)
	}
	zero, ff := strings.Repeat("00", 32), "ff"+strings.Repeat("ff", 30)
	for name, text := range map[string]string{
		"X25519 zero":           key(zero, ""),
		"X25519 one":            key("01"+zero[2:], ""),
		"X25519 of order 8":     key("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", ""),
		"X25519 minus one":      key("ec"+ff[2:]+"7f", ""),
		"Ed25519 identity":      key("", "01"+zero[2:]),
		"Ed25519 of order 2":    key("", "ec"+ff[2:]+"7f"),
		"Ed25519 of order 4":    key("", zero),
		"Ed25519 of order 8":    key("", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		"Ed25519 not a point":   key("", "02"+zero[2:]),
		"Ed25519 not canonical": key("", "ed"+ff[2:]+"7f"),
		"another version":       wire.EncodeText(publicPrefix, append([]byte{2}, make([]byte, 64)...)),
		"too short":             wire.EncodeText(publicPrefix, []byte{1, 2, 3}),
		"a private key":         id.Text(),
	} {
		if _, err := ParseRecipientKey(text); !errors.Is(err, ErrRecipientKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseRecipientKey(key("", "")); err != nil {
		t.Errorf("the key itself: %v", err)
	}
}

func TestWordsAreComparedAndNotTheirSpelling(t *testing.T) {
	if len(wordList) != 2048 || wordList[0] != "abandon" || wordList[2047] != "zoo" {
		t.Fatalf("the list has %d words", len(wordList))
	}
	begins := make(map[string]bool)
	for _, w := range wordList {
		if begins[w[:min(4, len(w))]] {
			t.Errorf("%s begins as another word does", w)
		}
		begins[w[:min(4, len(w))]] = true
	}
	var fp [32]byte
	copy(fp[:], ed25519.NewKeyFromSeed(make([]byte, 32))[32:])
	words := FingerprintWords(fp)
	line := strings.Join(words, " ")
	short := make([]string, len(words))
	for i, w := range words {
		short[i] = w[:min(4, len(w))]
	}
	for _, typed := range []string{line, strings.ToUpper(line), strings.Join(words, "-"), "  " + strings.Join(words, "\n"), strings.Join(short, " "), hex.EncodeToString(fp[:]), strings.ToUpper(hex.EncodeToString(fp[:]))} {
		if !MatchFingerprint(fp, typed) {
			t.Errorf("%q is refused", typed)
		}
	}
	swapped := append([]string{words[1], words[0]}, words[2:]...)
	for _, typed := range []string{"", line[:len(line)-5], line + " zoo", strings.Join(words[:7], " "), strings.Join(swapped, " "), hex.EncodeToString(fp[:31]), hex.EncodeToString(fp[:8]), strings.Repeat("a ", 8)} {
		if MatchFingerprint(fp, typed) {
			t.Errorf("%q passes", typed)
		}
	}
	for bit := range 88 {
		other := fp
		other[bit/8] ^= 0x80 >> (bit % 8)
		if MatchFingerprint(other, line) {
			t.Errorf("bit %d of the fingerprint is in no word", bit)
		}
	}
	if got := SessionWords(make([]byte, 32)); strings.Join(got, " ") != "abandon abandon abandon abandon" || !MatchSessionWords(make([]byte, 32), "aban aban aban aban") {
		t.Errorf("session words: %v", got)
	}
}
