package handle

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/wire"
)

const root = "../.."

// count is 1, 2, 3 … in n bytes.
func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func vectorHandle(sealed bool) Handle {
	pin := wire.Pin(bytes.Repeat([]byte{0xcc}, 32))
	h := Handle{
		Sealed: sealed, RID: wire.RendezvousID(count(16)), Fingerprint: [32]byte(bytes.Repeat([]byte{0xaa}, 32)),
		HardLimit: time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC),
		Relays:    []wire.Relay{{Address: "relay.example.com:4433", Pin: &pin}},
	}
	if sealed {
		h.Enc, h.Box = [32]byte(bytes.Repeat([]byte{0xe1}, 32)), [48]byte(bytes.Repeat([]byte{0xb0}, 48))
		return h
	}
	h.Secret = wire.SecretOf([32]byte(bytes.Repeat([]byte{0x5e}, 32)))
	return h
}

// payload is what is under the text.
func payload(t *testing.T, h Handle) []byte {
	t.Helper()
	prefix := sealedPrefix
	if !h.Sealed {
		prefix = bearerPrefix
	}
	b, err := wire.DecodeText(prefix, h.Text(), MaxText)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func describe(h Handle) vectors.Values {
	out := vectors.Values{
		"mode": "bearer", "rid": vectors.Hex(h.RID[:]), "fingerprint": vectors.Hex(h.Fingerprint[:]),
		"hard_limit": fmt.Sprint(h.HardLimit.Unix()), "header": vectors.Hex(h.Header()),
	}
	hash := h.Hash()
	out["hh"] = vectors.Hex(hash[:])
	for i, r := range h.Relays {
		text := r.Address
		if r.Pin != nil {
			text += " " + r.Pin.String()
		}
		out[fmt.Sprintf("relay_%d", i+1)] = text
	}
	if h.Sealed {
		out["mode"], out["enc"], out["box"] = "sealed", vectors.Hex(h.Enc[:]), vectors.Hex(h.Box[:])
		return out
	}
	out["s"] = vectors.Hex(h.Secret.Reveal())
	return out
}

func TestHandlesAreThoseOfTheVectors(t *testing.T) {
	sealed, bearer := vectorHandle(true), vectorHandle(false)
	file := vectors.File{About: "Handles as people paste them: wire/README.md §1.1 and §4. s, in a bearer handle, is the session's secret."}
	good := func(name, text string, h Handle) {
		file.Cases = append(file.Cases, vectors.Case{Name: name, In: vectors.Values{"text": text}, Out: describe(h)})
	}
	bad := func(class, name, text string) {
		file.Cases = append(file.Cases, vectors.Case{Name: name, In: vectors.Values{"text": text}, Error: class})
	}
	text := sealed.Text()
	good("sealed", text, sealed)
	good("bearer", bearer.Text(), bearer)
	good("upper case", strings.ToUpper(text), sealed)
	good("broken over lines", " "+text[:40]+"\r\n\t"+text[40:]+"\n", sealed)
	good("in double quotes", `"`+text+`"`, sealed)
	good("in single quotes", `'`+bearer.Text()+`'`, bearer)
	several := sealed
	several.Relays = []wire.Relay{sealed.Relays[0], {Address: "192.0.2.7:443"}, {Address: "[2001:db8::1]:65535"}}
	good("three relays", several.Text(), several)
	longest := bearer
	longest.Relays = []wire.Relay{{Address: strings.Repeat("a", 95) + ":4433"}}
	good("an address of 100 characters", longest.Text(), longest)

	bad("checksum", "a letter changed", text[:60]+other(text[60:61])+text[61:])
	bad("checksum", "two letters swapped", text[:60]+text[61:62]+text[60:61]+text[62:])
	bad("character", "a letter that is not in the alphabet", text[:60]+"u"+text[61:])
	bad("character", "padding", text+"=")
	bad("prefix", "two pairs of quotes", `'"`+text+`"'`)
	bad("character", "a dash inside", text[:60]+"-"+text[60:])
	bad("character", "a sign that folds to k", text[:60]+"\u212a"+text[61:])
	bad("prefix", "no handle", "hello")
	bad("prefix", "nothing", "")
	bad("prefix", "a token", wire.EncodeText("ost1", count(32)))
	bad("character", "the prefix alone", "osh1s")
	bad("length of the text", "1,025 characters", "osh1s"+strings.Repeat("0", 1020))
	bad("padding bits", "the last letter has bits to spare", spare(t, sealed))

	// What follows has a good checksum over a payload that is not a handle.
	raw := func(class, name string, sealed bool, change func([]byte) []byte) {
		prefix := sealedPrefix
		if !sealed {
			prefix = bearerPrefix
		}
		bad(class, name, wire.EncodeText(prefix, change(payload(t, vectorHandle(sealed)))))
	}
	put := func(at int, value ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], value); return b }
	}
	const relayAt = 55
	raw("version", "version 0", true, put(0, 0))
	raw("version", "version 2", false, put(0, 2))
	raw("flags", "a sealed handle that says bearer", true, put(1, 1))
	raw("flags", "a bearer handle that says sealed", false, put(1, 0))
	raw("flags", "flags 2", false, put(1, 2))
	raw("relays", "no relay", true, put(54, 0))
	raw("relays", "four relays", true, put(54, 4))
	raw("short", "two relays announced, one there", true, func(b []byte) []byte { b[54] = 2; return b[:relayAt+1+22+33] })
	raw("address", "an empty address", true, func(b []byte) []byte { return append(append(b[:relayAt:relayAt], 0, 0), b[relayAt+1+22+33:]...) })
	raw("address", "a host with a space", true, put(relayAt+1, ' '))
	raw("address", "a host in upper case", true, put(relayAt+1, 'R'))
	raw("address", "a host with an escape", true, put(relayAt+1, 0x1b))
	raw("address", "a host beyond ASCII", true, put(relayAt+1, 0xc3, 0xa9))
	raw("address", "no port", true, put(relayAt+1+17, []byte(":abcd")...))
	raw("address", "port 0", true, put(relayAt+1+17, []byte(":0000")...))
	raw("address", "a port with a leading zero", true, put(relayAt+1+17, []byte(":0443")...))
	raw("address", "port 65536", true, put(relayAt+1+16, []byte(":65536")...))
	raw("pin flag", "pin flag 2", true, put(relayAt+1+22, 2))
	raw("short", "half a pin", true, func(b []byte) []byte { return b[:relayAt+1+22+17] })
	raw("short", "cut before the relays", true, func(b []byte) []byte { return b[:54] })
	raw("short", "an empty payload", false, func([]byte) []byte { return nil })
	raw("short", "a byte of the box is missing", true, func(b []byte) []byte { return b[:len(b)-1] })
	raw("short", "a byte too many", true, func(b []byte) []byte { return append(b, 0) })
	raw("short", "a secret of 31 bytes", false, func(b []byte) []byte { return b[:len(b)-1] })
	raw("short", "a sealed box in a bearer handle", false, func(b []byte) []byte { return append(b, make([]byte, 48)...) })

	vectors.Check(t, root, "handle", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		h, err := Parse(in["text"])
		if err != nil {
			return nil, err
		}
		return describe(h), nil
	}, vectors.Classes{
		"checksum": "checksum is wrong", "character": "does not belong", "prefix": "does not begin with",
		"length of the text": "longer than", "padding bits": "not canonical", "version": "is not known here",
		"flags": "flags do not fit", "relays": "it names", "short": "valid handle: it is cut short", "address": "relay's address",
		"pin flag": "pin flag",
	})
}

// other is a letter of the alphabet that is not this one.
func other(letter string) string {
	if letter == "0" {
		return "1"
	}
	return "0"
}

// spare is the handle's text, or that of one like it, with a bit set behind its
// last byte.
func spare(t *testing.T, h Handle) string {
	t.Helper()
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	for len(h.Relays[0].Address) < 40 {
		text := h.Text()
		last := strings.IndexByte(alphabet, text[len(text)-1])
		changed := text[:len(text)-1] + alphabet[last|1:][:1]
		if _, err := wire.DecodeText(sealedPrefix, changed, MaxText); err != nil && strings.Contains(err.Error(), "canonical") {
			return changed
		}
		h.Relays[0].Address = "a" + h.Relays[0].Address
	}
	t.Fatal("every text ends with a whole letter")
	return ""
}

func TestRecipientKeysAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Recipients' keys: wire/README.md §2. Either the text of a public key, or a private seed with what is derived of it."}
	for _, seed := range [][]byte{make([]byte, 32), count(32), bytes.Repeat([]byte{0xff}, 32)} {
		id, err := NewRecipientIdentity(bytes.NewReader(seed))
		if err != nil {
			t.Fatal(err)
		}
		file.Cases = append(file.Cases, vectors.Case{
			Name: "the seed " + vectors.Hex(seed[:4]) + "…", In: vectors.Values{"seed": vectors.Hex(seed)},
			Out: vectors.Values{
				"private_text": id.Text(), "public_text": id.Public().Text(),
				"x25519_private": vectors.Hex(id.X25519().Bytes()), "x25519_public": vectors.Hex(id.Public().X25519.Bytes()),
				"ed25519_seed": vectors.Hex(id.Ed25519().Seed()), "ed25519_public": vectors.Hex(id.Public().Ed25519),
			},
		})
	}
	id, err := NewRecipientIdentity(bytes.NewReader(count(32)))
	if err != nil {
		t.Fatal(err)
	}
	key := id.Public()
	bad := func(class, name string, version byte, x, ed []byte) {
		text := wire.EncodeText(publicPrefix, append(append([]byte{version}, x...), ed...))
		file.Cases = append(file.Cases, vectors.Case{Name: name, In: vectors.Values{"public_text": text}, Error: class})
	}
	x, ed := key.X25519.Bytes(), []byte(key.Ed25519)
	point := func(last byte, rest ...byte) []byte {
		b := make([]byte, 32)
		copy(b, rest)
		b[31] = last
		return b
	}
	ones := bytes.Repeat([]byte{0xff}, 32)
	bad("form", "version 2", 2, x, ed)
	bad("form", "a byte is missing", 1, x, ed[:31])
	bad("form", "a byte too many", 1, x, append(bytes.Clone(ed), 0))
	bad("low order", "X25519: 0", 1, point(0), ed)
	bad("low order", "X25519: 1", 1, point(0, 1), ed)
	bad("low order", "X25519: p - 1", 1, append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...), ed)
	bad("low order", "X25519: p", 1, append([]byte{0xed}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...), ed)
	bad("small order", "Ed25519: the identity", 1, x, point(0, 1))
	bad("small order", "Ed25519: the point of order 2", 1, x, append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...))
	bad("small order", "Ed25519: a point of order 4", 1, x, point(0))
	bad("not canonical", "Ed25519: y = p + 1", 1, x, append([]byte{0xee}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...))
	bad("not canonical", "Ed25519: minus zero", 1, x, point(0x80, 1))
	bad("no point", "Ed25519: no point of the curve", 1, x, point(0, 2))
	bad("not canonical", "Ed25519: all ones", 1, x, ones)
	vectors.Check(t, root, "recipient-key", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		if in["public_text"] != "" {
			_, err := ParseRecipientKey(in["public_text"])
			return nil, err
		}
		id, err := NewRecipientIdentity(bytes.NewReader(in.Bytes(t, "seed")))
		if err != nil {
			return nil, err
		}
		back, err := ParseRecipientIdentity(id.Text())
		if err != nil {
			return nil, err
		}
		again, err := ParseRecipientKey(back.Public().Text())
		if err != nil {
			return nil, err
		}
		return vectors.Values{
			"private_text": back.Text(), "public_text": again.Text(),
			"x25519_private": vectors.Hex(back.X25519().Bytes()), "x25519_public": vectors.Hex(again.X25519.Bytes()),
			"ed25519_seed": vectors.Hex(back.Ed25519().Seed()), "ed25519_public": vectors.Hex(again.Ed25519),
		}, nil
	}, vectors.Classes{
		"form": "has another form", "low order": "of low order", "small order": "of small order",
		"not canonical": "is not canonical", "no point": "is not a point",
	})
}

func TestFingerprintsOfTheVectorsAreWords(t *testing.T) {
	file := vectors.File{About: "What people compare: wire/README.md §10. fp is the daemon's fingerprint."}
	for i := range byte(4) {
		public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, 32)).Public().(ed25519.PublicKey)
		fp := wire.Hash("daemon fingerprint", public)
		file.Cases = append(file.Cases, vectors.Case{
			Name: fmt.Sprintf("a key of the seed %d", i), In: vectors.Values{"public": vectors.Hex(public)},
			Out: vectors.Values{"fp": vectors.Hex(fp[:]), "words": strings.Join(FingerprintWords(fp), " ")},
		})
	}
	vectors.Check(t, root, "fingerprint", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		fp := wire.Hash("daemon fingerprint", in.Bytes(t, "public"))
		return vectors.Values{"fp": vectors.Hex(fp[:]), "words": strings.Join(FingerprintWords(fp), " ")}, nil
	}, nil)
}

func TestAHostileHandleCostsLittle(t *testing.T) {
	inputs := vectors.Load(t, root, "handle").Inputs(t, "text", false)
	most := vectors.HoldAllocations(t, inputs, 20, func(b []byte) { _, _ = Parse(string(b)) })
	keys := vectors.Load(t, root, "recipient-key").Inputs(t, "public_text", false)
	most = max(most, vectors.HoldAllocations(t, keys, 20, func(b []byte) { _, _ = ParseRecipientKey(string(b)) }))
	t.Logf("at most %d bytes beyond four times the input", most)
}
