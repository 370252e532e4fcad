package passport

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"openscope/bench/vectors"
)

const root = ".."

// signedVector is a whole passport, with one constraint of each kind.
func signedVector() Passport {
	lines := "100"
	return Passport{
		Session: [16]byte(bytes.Repeat([]byte{0x1d}, 16)), Daemon: [32]byte(bytes.Repeat([]byte{0xfd}, 32)),
		Issuer: "you", Recipient: "vendor-b", Subject: testSubject, Serial: 3,
		NotBefore: time.Unix(1_800_000_000, 0).UTC(), Expires: time.Unix(1_800_001_800, 0).UTC(),
		Grant: Grant{
			Verbs: []Verb{
				{Name: "disk.usage", Summary: "What is full", Class: Read, Params: nil, Timeout: 30 * time.Second},
				{
					Name: "ssh.tail_logs", Summary: "Follow a service's journal", Class: Read,
					Params: []Param{
						{Name: "filter", Type: "string", Allowed: StartsWith("web-")},
						{Name: "lines", Type: "integer", Default: &lines, Allowed: Between(-5, 2000)},
						{Name: "since", Type: "duration", Allowed: AnyValue()},
						{Name: "service", Type: "string", Summary: "The unit", Required: true, Allowed: OneOf("api", "web")},
					},
					Timeout: 10 * time.Minute, MaxOutput: 4 << 20,
				},
			},
			Limits: Limits{MaxCalls: 20, MaxOutput: 1 << 20, MaxSessionOutput: 64 << 20, Until: time.Unix(1_800_000_900, 0).UTC()},
		},
	}
}

// emptyPassport has nothing in it but whom it is for.
func emptyPassport() Passport {
	return Passport{Subject: testSubject, NotBefore: time.Unix(0, 0).UTC(), Expires: time.Unix(0, 0).UTC()}
}

// bodyOf is a passport's body as a map that can be edited.
func bodyOf(t *testing.T) map[uint64]any {
	t.Helper()
	p := signedVector()
	slices.SortFunc(p.Grant.Verbs[1].Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	var fields map[uint64]any
	if err := cbor.Unmarshal(signed(t, p)[ed25519.SignatureSize:], &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// within is a part of the body: verbs and parameters are maps in arrays.
func within(fields map[uint64]any, verb int, param ...int) map[any]any {
	v := fields[10].([]any)[verb].(map[any]any)
	if len(param) == 0 {
		return v
	}
	return v[uint64(4)].([]any)[param[0]].(map[any]any)
}

func describe(p *Passport) vectors.Values {
	out := vectors.Values{
		"session": vectors.Hex(p.Session[:]), "daemon": vectors.Hex(p.Daemon[:]), "subject": vectors.Hex(p.Subject),
		"issuer": p.Issuer, "recipient": p.Recipient, "serial": fmt.Sprint(p.Serial),
		"not_before": fmt.Sprint(p.NotBefore.Unix()), "expires": fmt.Sprint(p.Expires.Unix()),
		"limits": fmt.Sprintf("%d calls, %d bytes a call, %d bytes, until %d",
			p.Grant.Limits.MaxCalls, p.Grant.Limits.MaxOutput, p.Grant.Limits.MaxSessionOutput, p.Grant.Limits.Until.Unix()),
	}
	for _, v := range p.Grant.Verbs {
		var params []string
		for _, param := range v.Params {
			params = append(params, param.Name+"="+param.Allowed.String())
		}
		out["verb "+v.Name] = fmt.Sprintf("%s, %v: %s", v.Class, v.Timeout, strings.Join(params, ","))
	}
	return out
}

func TestPassportsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Signed passports: passport/README.md §4 and §5. key is the daemon's, seed that of the signer."}
	public := testKey.Public().(ed25519.PublicKey)
	add := func(class, name string, s Signed, key []byte) {
		in := vectors.Values{"signed": vectors.Hex(s), "key": vectors.Hex(key)}
		c := vectors.Case{Name: name, In: in, Error: class}
		if class == "" {
			in["seed"] = vectors.Hex(testKey.Seed())
			p, err := Verify(s, public)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c.Out = describe(p)
		}
		file.Cases = append(file.Cases, c)
	}
	body := func(fields map[uint64]any) []byte {
		b, err := encoder.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	edited := func(edit func(map[uint64]any)) []byte {
		fields := bodyOf(t)
		edit(fields)
		return body(fields)
	}
	add("", "every kind of constraint", resigned(body(bodyOf(t))), public)
	add("", "nothing in it", signed(t, emptyPassport()), public)
	add("", "a bearer's, without an alias", resigned(edited(func(m map[uint64]any) { m[5] = "" })), public)

	honest := resigned(body(bodyOf(t)))
	flip := func(at int) Signed {
		s := bytes.Clone(honest)
		s[at] ^= 1
		return s
	}
	add("signature", "a bit of the signature", flip(0), public)
	add("signature", "a bit of the body", flip(100), public)
	add("signature", "the last bit", flip(len(honest)-1), public)
	add("signature", "another daemon's key", honest, testSubject)
	add("signature", "signed without the label", append(Signed(ed25519.Sign(testKey, honest[64:])), honest[64:]...), public)
	add("size", "nothing", nil, public)
	add("size", "a signature alone", honest[:64], public)
	add("signature", "cut by a byte", honest[:len(honest)-1], public)
	add("size", "15,001 bytes", append(bytes.Clone(honest), make([]byte, MaxSigned+1-len(honest))...), public)

	raw := honest[64:]
	// 0xae begins a map of 14 pairs, 0x01 is the first key, 0x01 its value.
	if !bytes.HasPrefix(raw, []byte{0xae, 0x01, 0x01}) {
		t.Fatalf("the layout has changed: % x", raw[:3])
	}
	bad := func(class, name string, b []byte) { add(class, name, resigned(b), public) }
	bad("canonical", "an overlong integer", append([]byte{0xae, 0x01, 0x18, 0x01}, raw[3:]...))
	bad("canonical", "an overlong key", append([]byte{0xae, 0x18, 0x01, 0x01}, raw[3:]...))
	bad("canonical", "two keys swapped", append([]byte{0xae, 0x02, 0x50}, append(bytes.Repeat([]byte{0x1d}, 16), append([]byte{0x01, 0x01}, raw[3+2+16:]...)...)...))
	bad("CBOR", "an indefinite map", append(append([]byte{0xbf}, raw[1:]...), 0xff))
	bad("CBOR", "a key twice", append([]byte{0xaf, 0x01, 0x01}, raw[1:]...))
	bad("CBOR", "a tag around it", append([]byte{0xd9, 0xd9, 0xf7}, raw...))
	bad("CBOR", "a byte after it", append(bytes.Clone(raw), 0))
	bad("CBOR", "cut in the middle, and signed so", raw[:len(raw)/2])
	bad("CBOR", "an unknown key", edited(func(m map[uint64]any) { m[15] = true }))
	bad("CBOR", "an unknown key of a verb", edited(func(m map[uint64]any) { within(m, 0)[uint64(7)] = true }))
	bad("CBOR", "a text for a number", edited(func(m map[uint64]any) { m[7] = "3" }))
	bad("CBOR", "a serial of 33 bits", edited(func(m map[uint64]any) { m[7] = uint64(1) << 32 }))
	bad("CBOR", "a text that is not UTF-8", bytes.Replace(raw, []byte("you"), []byte("y\xffu"), 1))
	bad("CBOR", "ten arrays in each other", append(bytes.Repeat([]byte{0x81}, 10), 0x00))
	bad("canonical", "a missing key", edited(func(m map[uint64]any) { delete(m, 9) }))
	bad("field", "version 2", edited(func(m map[uint64]any) { m[1] = uint64(2) }))
	bad("field", "a session of 15 bytes", edited(func(m map[uint64]any) { m[2] = make([]byte, 15) }))
	bad("field", "a fingerprint of 33 bytes", edited(func(m map[uint64]any) { m[3] = make([]byte, 33) }))
	bad("field", "a subject of 31 bytes", edited(func(m map[uint64]any) { m[6] = make([]byte, 31) }))
	bad("field", "129 verbs", edited(func(m map[uint64]any) {
		one := within(m, 0)
		verbs := make([]any, 129)
		for i := range verbs {
			verbs[i] = one
		}
		m[10] = verbs
	}))
	bad("name", "an issuer with an escape", edited(func(m map[uint64]any) { m[4] = "you\x1b[2J" }))
	bad("name", "an alias turned around", edited(func(m map[uint64]any) { m[5] = "vendor\u202eb" }))
	bad("name", "an alias with a left-to-right mark", edited(func(m map[uint64]any) { m[5] = "vendor\u200eb" }))
	bad("name", "an issuer of 257 bytes", edited(func(m map[uint64]any) { m[4] = strings.Repeat("x", 257) }))
	verb := func(name string, key uint64, value any) {
		bad("verb", name, edited(func(m map[uint64]any) { within(m, 1)[key] = value }))
	}
	verb("a verb's name in upper case", 1, "ssh.Tail")
	verb("a verb's name without a dot", 1, "ssh")
	verb("a verb's summary with a newline", 2, "a\nb")
	verb("a verb's summary of 201 bytes", 2, strings.Repeat("x", 201))
	verb("a class that there is not", 3, "write")
	param := func(class, name string, at int, edit func(map[any]any)) {
		bad(class, name, edited(func(m map[uint64]any) { edit(within(m, 1, at)) }))
	}
	bad("order", "parameters out of order", edited(func(m map[uint64]any) {
		params := within(m, 1)[uint64(4)].([]any)
		params[0], params[1] = params[1], params[0]
	}))
	bad("order", "a parameter twice", edited(func(m map[uint64]any) {
		params := within(m, 1)[uint64(4)].([]any)
		params[1] = params[0]
	}))
	param("bounds", "kind 0", 0, func(p map[any]any) { p[uint64(6)] = uint64(0) })
	param("bounds", "kind 5", 0, func(p map[any]any) { p[uint64(6)] = uint64(5) })
	param("bounds", "any value, with a prefix", 0, func(p map[any]any) { p[uint64(6)] = uint64(kindAny) })
	param("bounds", "a prefix that is empty", 0, func(p map[any]any) { delete(p, uint64(10)) })
	param("bounds", "a range upside down", 1, func(p map[any]any) { p[uint64(8)], p[uint64(9)] = int64(9), int64(8) })
	param("bounds", "a range with a set", 1, func(p map[any]any) { p[uint64(7)] = []string{"1"} })
	param("bounds", "a set of nothing", 2, func(p map[any]any) { delete(p, uint64(7)) })
	param("set", "a set out of order", 2, func(p map[any]any) { p[uint64(7)] = []string{"web", "api"} })
	param("set", "a set with a value twice", 2, func(p map[any]any) { p[uint64(7)] = []string{"api", "api"} })
	param("parameter", "a name in upper case", 3, func(p map[any]any) { p[uint64(1)] = "zZ" })
	param("parameter", "a prefix with an escape", 0, func(p map[any]any) { p[uint64(10)] = "\x1b[2J" })
	param("parameter", "a default with a newline", 1, func(p map[any]any) { p[uint64(5)] = "1\n" })
	param("parameter", "a value with an escape", 2, func(p map[any]any) { p[uint64(7)] = []string{"a\x1bb"} })
	param("parameter", "a value turned around", 2, func(p map[any]any) { p[uint64(7)] = []string{"a\u202eb"} })
	param("parameter", "a value of 4,097 bytes", 2, func(p map[any]any) { p[uint64(7)] = []string{strings.Repeat("x", 4097)} })
	bad("time", "not before 1970", edited(func(m map[uint64]any) { m[8] = int64(-1) }))
	bad("time", "an end in the year 10,000", edited(func(m map[uint64]any) { m[9] = int64(253_402_300_800) }))
	bad("time", "until the year 36,812", edited(func(m map[uint64]any) { m[14] = int64(1) << 40 }))
	param("parameter", "a summary with an escape", 0, func(p map[any]any) { p[uint64(3)] = "\x1b]0;x\a" })
	vectors.Check(t, root, "passport", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		p, err := Verify(Signed(in.Bytes(t, "signed")), in.Bytes(t, "key"))
		if err != nil {
			return nil, err
		}
		return describe(p), nil
	}, vectors.Classes{
		"signature": "the signature is wrong", "size": "a size of", "canonical": "not canonical", "CBOR": "does not decode",
		"field": "wrong size or version", "name": "name is too long", "verb": "a verb is malformed", "order": "parameters are not", "set": "a set is",
		"bounds": "bounds are malformed", "parameter": "a parameter is malformed", "time": "a time is out of range",
	})
}

func TestSpecsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "What may be written after --verb: passport/README.md §3. out has each parameter's constraint, written canonically; ^ is a prefix."}
	good := []string{
		"app.verb", "app.verb:a=1", "app.verb:a=1|2|1", "app.verb:a=1..20", "app.verb:a=-5..-1", "app.verb:a^=web-", "app.verb:b=y,a=x",
		`app.verb:a="x,b=y"`, `app.verb:a="x|y"|z`, `app.verb:a="\"\\"`, `app.verb:a="1..2"`, `app.verb:a=""`, "app.verb:a=01..2",
		"app.verb:a=http://x:1/y=z?q", "k8s.get-pods:name_space=kube-dns1", "app.verb:a=é",
	}
	for _, text := range good {
		spec, err := ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		file.Cases = append(file.Cases, vectors.Case{Name: text, In: vectors.Values{"text": text}, Out: describeSpec(spec)})
	}
	bad := []string{
		"", "verb", "app.", ".verb", "app.verb.more", "App.verb", "app.vérb", "app verb", "1app.verb", "app.verb:", "app.verb:a", "app.verb:=1",
		"app.verb:a=", "app.verb:a=1,", "app.verb:a=1,,b=2", "app.verb:a=1,a=2", "app.verb:a=1|", "app.verb:a=|1", "app.verb:a^", "app.verb:a^=",
		"app.verb:a^1", "app.verb:A=1", "app.verb:a=5..1", `app.verb:a="x`, `app.verb:a="x"y`, `app.verb:a=x"y"`, `app.verb:a=x\y`, `app.verb:a="\n"`, "app.verb:a=x\ny", "app.verb:a=\u202ex",
		"app.verb:a=" + strings.Repeat("x|", 64) + "x", "app.verb:a=" + strings.Repeat("x", 4096),
	}
	for i, text := range bad {
		file.Cases = append(file.Cases, vectors.Case{Name: fmt.Sprintf("bad %d: %.30s", i+1, text), In: vectors.Values{"text": text}, Error: "spec"})
	}
	vectors.Check(t, root, "spec", file, func(_ *testing.T, in vectors.Values) (vectors.Values, error) {
		spec, err := ParseSpec(in["text"])
		if err != nil {
			return nil, err
		}
		return describeSpec(spec), nil
	}, vectors.Classes{"spec": ErrSpec.Error()})
}

func describeSpec(spec Spec) vectors.Values {
	out := vectors.Values{"verb": spec.Verb}
	for _, name := range slices.Sorted(maps.Keys(spec.Params)) {
		out["param "+name] = spec.Params[name].String()
	}
	return out
}

func TestAHostilePassportCostsLittle(t *testing.T) {
	inputs := vectors.Load(t, root, "passport").Inputs(t, "signed", true)
	public := testKey.Public().(ed25519.PublicKey)
	most := vectors.HoldAllocations(t, inputs, 5, func(b []byte) { _, _ = Verify(b, public) })
	// Signed by a daemon that has gone bad: the decoder sees it too.
	most = max(most, vectors.HoldAllocations(t, inputs, 20, func(b []byte) { _, _ = Verify(resigned(b[min(len(b), 64):]), public) }))
	specs := vectors.Load(t, root, "spec").Inputs(t, "text", false)
	most = max(most, vectors.HoldAllocations(t, specs, 20, func(b []byte) { _, _ = ParseSpec(string(b)) }))
	t.Logf("at most %d bytes beyond four times the input", most)
}
