package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
)

// keyOf is the same key in every run.
func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func publicOf(seed byte) ed25519.PublicKey { return keyOf(seed).Public().(ed25519.PublicKey) }

func tokenOf(t *testing.T, seed byte) Token {
	t.Helper()
	token, err := NewToken(bytes.NewReader(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestLengthPrefixesAreFourBytesBigEndian(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 300)
	for _, c := range []struct {
		name  string
		parts [][]byte
		want  string
	}{
		{"nothing", nil, ""},
		{"an empty part", [][]byte{{}}, "\x00\x00\x00\x00"},
		{"one part", [][]byte{[]byte("abc")}, "\x00\x00\x00\x03abc"},
		{"two parts", [][]byte{[]byte("ab"), []byte("c")}, "\x00\x00\x00\x02ab\x00\x00\x00\x01c"},
		{"the same letters cut elsewhere", [][]byte{[]byte("a"), []byte("bc")}, "\x00\x00\x00\x01a\x00\x00\x00\x02bc"},
		{"more than one byte of length", [][]byte{long}, "\x00\x00\x01\x2c" + string(long)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(LP(c.parts...)); got != c.want {
				t.Errorf("LP is %q, not %q", got, c.want)
			}
			if got := string(AppendLP([]byte("before"), c.parts...)); got != "before"+c.want {
				t.Errorf("AppendLP is %q", got)
			}
		})
	}
}

func TestHashBeginsWithTheProtocolAndTheLabel(t *testing.T) {
	literal := "\x00\x00\x00\x41" + "openscope/1 e2e XWing+X25519 HKDF-SHA256 ChaCha20Poly1305 Ed25519" +
		"\x00\x00\x00\x03rid" + "\x00\x00\x00\x01a" + "\x00\x00\x00\x00"
	if got, want := Hash("rid", []byte("a"), nil), sha256.Sum256([]byte(literal)); got != want {
		t.Errorf("the hash is %x, not %x", got, want)
	}
	if Hash("a", []byte("b")) == Hash("ab") || Hash("a") == Hash("a", nil) {
		t.Error("two lists of parts have one hash")
	}
}

func TestTextRoundTrips(t *testing.T) {
	for size := range 70 {
		payload := bytes.Repeat([]byte{0xa5, 0x00, 0xff}, size)[:size]
		text := EncodeText("ost1", payload)
		if text != strings.ToLower(text) || strings.ContainsAny(strings.TrimPrefix(text, "ost1"), "ilou=") {
			t.Errorf("%q has a letter that people confuse", text)
		}
		back, err := DecodeText("ost1", text, len(text))
		if err != nil || !bytes.Equal(back, payload) {
			t.Errorf("%d bytes came back as %x: %v", size, back, err)
		}
	}
}

func TestTextIsTakenAsPeoplePasteIt(t *testing.T) {
	payload := bytes.Repeat([]byte{0x5a}, 32)
	text := EncodeText("ost1", payload)
	for name, pasted := range map[string]string{
		"as printed":         text,
		"upper case":         strings.ToUpper(text),
		"mixed case":         strings.ToUpper(text[:20]) + text[20:],
		"white space around": " \t" + text + "\r\n",
		"broken over lines":  text[:10] + "\n    " + text[10:30] + "\u00a0" + text[30:],
		"double quotes":      `"` + text + `"`,
		"single quotes":      "' " + text + " '\n",
	} {
		if back, err := DecodeText("ost1", pasted, 80); err != nil || !bytes.Equal(back, payload) {
			t.Errorf("%s: %x, %v", name, back, err)
		}
	}
	for name, pasted := range map[string]string{
		"nothing":             "",
		"the prefix alone":    "ost1",
		"two pairs of quotes": `"'` + text + `'"`,
		"one quote":           `"` + text,
		"quotes that differ":  `"` + text + `'`,
		"another prefix":      "osk1" + text[4:],
		"something before":    "token:" + text,
		"a dash inside":       text[:9] + "-" + text[9:],
		"padding":             text + "=",
		"a letter left out":   strings.Replace(text, text[20:21], "", 1),
	} {
		if back, err := DecodeText("ost1", pasted, 80); err == nil {
			t.Errorf("%s was taken as %x", name, back)
		}
	}
}

func TestNoSignThatOnlyFoldsToALetterIsTaken(t *testing.T) {
	for payload := range 256 {
		text := EncodeText("ost1", []byte{byte(payload), 1, 2, 3})
		kelvin := strings.Replace(text, "k", "\u212a", 1)
		if kelvin == text {
			continue
		}
		if _, err := DecodeText("ost1", kelvin, 80); err == nil {
			t.Fatalf("%q was taken", kelvin)
		}
		return
	}
	t.Fatal("no text has a k")
}

// Whatever one character is replaced by, the text is refused, or it is the same
// text in another case.
func TestEverySingleCharacterChangeIsRefusedOrEqual(t *testing.T) {
	payload := []byte("thirty-two bytes of a secret key")
	text := EncodeText("ost1", payload)
	taken := 0
	for i := range len(text) {
		for b := range 256 {
			changed := text[:i] + string([]byte{byte(b)}) + text[i+1:]
			back, err := DecodeText("ost1", changed, len(text))
			if err != nil {
				continue
			}
			taken++
			if !strings.EqualFold(changed, text) || !bytes.Equal(back, payload) {
				t.Errorf("%q was taken as %x", changed, back)
			}
		}
		cut := text[:i] + text[i+1:]
		if _, err := DecodeText("ost1", cut, len(text)); err == nil {
			t.Errorf("%q, with character %d left out, was taken", cut, i)
		}
	}
	if taken < len(text) {
		t.Errorf("only %d texts were taken: not even the text itself", taken)
	}
}

func TestBitsBehindTheLastByteMustBeZero(t *testing.T) {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	for size := range 6 {
		text := EncodeText("ost1", make([]byte, size))
		spare := 5*(len(text)-4) - 8*(size+checksumSize)
		last := strings.IndexByte(alphabet, text[len(text)-1])
		for bits := 1; bits < 1<<spare; bits++ {
			other := text[:len(text)-1] + alphabet[last|bits:last|bits+1]
			if _, err := DecodeText("ost1", other, len(text)); err == nil {
				t.Errorf("%q was taken beside %q", other, text)
			}
		}
	}
}

func TestTooLongATextIsRefused(t *testing.T) {
	text := EncodeText("ost1", make([]byte, 32))
	if _, err := DecodeText("ost1", text, len(text)-1); err == nil {
		t.Error("one character too many was taken")
	}
	if _, err := DecodeText("ost1", text+strings.Repeat(" ", len(text)+1), len(text)); err == nil {
		t.Error("white space without end was taken")
	}
	if _, err := ParseToken(EncodeText(TokenPrefix, make([]byte, 200))); err == nil {
		t.Error("a token of 200 bytes was taken")
	}
}

func TestPinHasOneForm(t *testing.T) {
	digits := strings.Repeat("0a", 31) + "ff"
	pin, err := ParsePin("sha256:" + digits)
	if err != nil || pin.String() != "sha256:"+digits || pin[31] != 0xff {
		t.Errorf("%v, %v", pin, err)
	}
	if _, err := ParsePin(" sha256:" + digits + "\n"); err != nil {
		t.Errorf("white space around: %v", err)
	}
	for name, text := range map[string]string{
		"nothing":           "",
		"no prefix":         digits,
		"another hash":      "sha512:" + digits,
		"a digit too few":   "sha256:" + digits[1:],
		"a digit too many":  "sha256:" + digits + "0",
		"a letter beyond f": "sha256:" + digits[:63] + "g",
		"two pins":          "sha256:" + digits + digits,
		"colons":            "sha256:" + strings.Repeat("0:", 32),
	} {
		if pin, err := ParsePin(text); err == nil || pin != (Pin{}) {
			t.Errorf("%s: %v, %v", name, pin, err)
		}
	}
}

func TestTokenText(t *testing.T) {
	token := tokenOf(t, 7)
	back, err := ParseToken(token.Text())
	if err != nil || back.Text() != token.Text() || !back.Public().Equal(token.Public()) || back.ID() != token.ID() {
		t.Errorf("the token came back as another: %v", err)
	}
	if !strings.HasPrefix(token.Text(), "ost1") {
		t.Errorf("a token begins %q", token.Text()[:4])
	}
	if other := tokenOf(t, 8); other.ID() == token.ID() || other.Text() == token.Text() {
		t.Error("two tokens are alike")
	}
	if sum := Hash("token id", token.Public()); token.ID() != TokenID(sum[:16]) {
		t.Error("the id is not that of the public half")
	}
	for _, size := range []int{0, 31, 33, 64} {
		if _, err := ParseToken(EncodeText(TokenPrefix, make([]byte, size))); err == nil {
			t.Errorf("a token of %d bytes was taken", size)
		}
	}
	if _, err := NewToken(strings.NewReader("short of randomness")); err == nil {
		t.Error("a token was drawn from too little randomness")
	}
}

// addresses are those of what is pointed to, in bases of which a byte has no ten
// digits: they are another in each run, and may look like anything.
var addresses = regexp.MustCompile(`0*[1-7][0-7]{9,}`)

func TestTokenIsNeverPrinted(t *testing.T) {
	// The seed and its public half begin, in whatever base, with these.
	token := tokenOf(t, 0xab)
	secrets := []string{"abab", "ababab", "171 171", "171, 171", "0253", "10101011", "\xab\xab", "«", token.Text()[4:12]}
	held := struct {
		Shown  Token
		Listed []Token
		hidden Token
		nested *Token
	}{token, []Token{token}, token, &token}
	values := map[string]any{
		"value": token, "pointer": &token, "list": []Token{token}, "map": map[string]Token{"a": token},
		"struct": held, "pointer to struct": &held, "error": fmt.Errorf("saying %v", token),
	}
	for name, value := range values {
		for verb := byte('A'); verb <= 'z'; verb++ {
			if verb == 'T' || verb > 'Z' && verb < 'a' {
				continue
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "+#", "100", ".50"} {
				format := "%" + flags + string(verb)
				printed := addresses.ReplaceAllString(strings.ToLower(fmt.Sprintf(format, value)), "")
				for _, secret := range secrets {
					if strings.Contains(printed, strings.ToLower(secret)) {
						t.Errorf("%s of a %s shows the token: %s", format, name, printed)
						break
					}
				}
			}
		}
	}
	var log strings.Builder
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("dialing", "token", token, "pointer", &token, "all", []Token{token}, "in", held)
	}
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(log.String()), strings.ToLower(secret)) {
			t.Errorf("a log shows the token: %s", log.String())
		}
	}
	if text, err := json.Marshal(token); err == nil {
		t.Errorf("a token was marshalled: %s", text)
	}
}

func TestZeroTokenProvesNothingAndDoesNotPanic(t *testing.T) {
	var none Token
	if strings.Contains(fmt.Sprint(none), none.Text()) {
		t.Error("the zero token is printed")
	}
	hello := Hello{Token: none.ID(), Signature: none.SignHello([32]byte{1})}
	if hello.Verify(tokenOf(t, 1).Public(), [32]byte{1}) {
		t.Error("the zero token proves another")
	}
}

func TestRendezvousIDIsBoundToBothKeys(t *testing.T) {
	register, join, other := publicOf(1), publicOf(2), publicOf(3)
	rid := NewRendezvousID(register, join)
	sum := Hash("rid", register, join)
	if !bytes.Equal(rid[:], sum[:16]) {
		t.Errorf("the id is %x, not %x", rid, sum[:16])
	}
	for name, another := range map[string]RendezvousID{
		"another register key":  NewRendezvousID(other, join),
		"another join key":      NewRendezvousID(register, other),
		"the keys in two roles": NewRendezvousID(join, register),
	} {
		if another == rid {
			t.Errorf("%s: the same id", name)
		}
	}
	if rid.String() != hex.EncodeToString(rid[:]) {
		t.Errorf("the id prints as %s", rid)
	}
}

func TestHelloProvesOneTokenOnOneConnection(t *testing.T) {
	token, exporter := tokenOf(t, 1), [32]byte{9}
	hello := func() Hello { return Hello{Token: token.ID(), Signature: token.SignHello(exporter)} }
	if !hello().Verify(token.Public(), exporter) {
		t.Fatal("an honest hello is refused")
	}
	for name, wrong := range map[string]func(*Hello, *ed25519.PublicKey, *[32]byte){
		"another connection": func(_ *Hello, _ *ed25519.PublicKey, e *[32]byte) { e[31] ^= 1 },
		"another token's id": func(h *Hello, _ *ed25519.PublicKey, _ *[32]byte) { h.Token[0] ^= 1 },
		"another public key": func(_ *Hello, k *ed25519.PublicKey, _ *[32]byte) { *k = publicOf(5) },
		"a changed proof":    func(h *Hello, _ *ed25519.PublicKey, _ *[32]byte) { h.Signature[0] ^= 1 },
		"no proof":           func(h *Hello, _ *ed25519.PublicKey, _ *[32]byte) { h.Signature = nil },
		"a join's proof": func(h *Hello, k *ed25519.PublicKey, e *[32]byte) {
			*k = publicOf(1)
			h.Signature = SignJoin(keyOf(1), *e, RendezvousID(h.Token))
		},
	} {
		h, key, e := hello(), token.Public(), exporter
		wrong(&h, &key, &e)
		if h.Verify(key, e) {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestJoinProvesOneSessionOnOneConnection(t *testing.T) {
	rid, exporter := RendezvousID{4}, [32]byte{9}
	join := func() Join { return Join{RID: rid, Signature: SignJoin(keyOf(1), exporter, rid)} }
	if !join().Verify(publicOf(1), exporter) {
		t.Fatal("an honest join is refused")
	}
	for name, wrong := range map[string]func(*Join, *ed25519.PublicKey, *[32]byte){
		"another connection": func(_ *Join, _ *ed25519.PublicKey, e *[32]byte) { e[0] ^= 1 },
		"another session":    func(j *Join, _ *ed25519.PublicKey, _ *[32]byte) { j.RID[15] ^= 1 },
		"another join key":   func(_ *Join, k *ed25519.PublicKey, _ *[32]byte) { *k = publicOf(2) },
		"a changed proof":    func(j *Join, _ *ed25519.PublicKey, _ *[32]byte) { j.Signature[63] ^= 1 },
		"no proof":           func(j *Join, _ *ed25519.PublicKey, _ *[32]byte) { j.Signature = nil },
	} {
		j, key, e := join(), publicOf(1), exporter
		wrong(&j, &key, &e)
		if j.Verify(key, e) {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestRegisterProvesEveryFieldOnOneConnection(t *testing.T) {
	exporter := [32]byte{9}
	register := func() Register {
		return SignRegister(keyOf(1), exporter, Register{
			RID: NewRendezvousID(publicOf(1), publicOf(2)), RegisterKey: publicOf(1), JoinKey: publicOf(2), Lifetime: time.Minute,
		})
	}
	if err := register().Verify(exporter); err != nil {
		t.Fatalf("an honest registration is refused: %v", err)
	}
	for name, wrong := range map[string]func(*Register, *[32]byte){
		"another connection":   func(_ *Register, e *[32]byte) { e[5] ^= 1 },
		"another id":           func(r *Register, _ *[32]byte) { r.RID[0] ^= 1 },
		"another register key": func(r *Register, _ *[32]byte) { r.RegisterKey = publicOf(3) },
		"another join key":     func(r *Register, _ *[32]byte) { r.JoinKey = publicOf(3) },
		"another join key, and its id": func(r *Register, _ *[32]byte) {
			r.JoinKey, r.RID = publicOf(3), NewRendezvousID(publicOf(1), publicOf(3))
		},
		"another register key, and its id": func(r *Register, _ *[32]byte) {
			r.RegisterKey, r.RID = publicOf(3), NewRendezvousID(publicOf(3), publicOf(2))
		},
		"a longer lifetime": func(r *Register, _ *[32]byte) { r.Lifetime += time.Second },
		"a changed proof":   func(r *Register, _ *[32]byte) { r.Signature[1] ^= 1 },
		"no proof":          func(r *Register, _ *[32]byte) { r.Signature = nil },
		"signed by the join key": func(r *Register, e *[32]byte) {
			*r = SignRegister(keyOf(2), *e, *r)
		},
	} {
		r, e := register(), exporter
		wrong(&r, &e)
		if r.Verify(e) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
