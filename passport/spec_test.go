package passport

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"openscope/bench/vectors"
)

func TestSpecsMeanWhatTheManualSays(t *testing.T) {
	for text, want := range map[string]Spec{
		"app.verb":                          {Verb: "app.verb"},
		"app.verb:a=1":                      {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("1")}},
		"app.verb:a=1|2|1":                  {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("1", "2")}},
		"app.verb:a=1..20":                  {Verb: "app.verb", Params: map[string]Constraint{"a": Between(1, 20)}},
		"app.verb:a=-5..-1":                 {Verb: "app.verb", Params: map[string]Constraint{"a": Between(-5, -1)}},
		"app.verb:a^=web-":                  {Verb: "app.verb", Params: map[string]Constraint{"a": StartsWith("web-")}},
		"app.verb:a=x,b=y":                  {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("x"), "b": OneOf("y")}},
		`app.verb:a="x,b=y"`:                {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("x,b=y")}},
		`app.verb:a="x|y"|z`:                {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("x|y", "z")}},
		`app.verb:a="\"\\"`:                 {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf(`"\`)}},
		`app.verb:a="1..2"`:                 {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("1..2")}},
		`app.verb:a=""`:                     {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("")}},
		"app.verb:a=01..2":                  {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("01..2")}},
		"app.verb:a=http://x:1/y=z?q":       {Verb: "app.verb", Params: map[string]Constraint{"a": OneOf("http://x:1/y=z?q")}},
		"k8s.get-pods:name_space=kube-dns1": {Verb: "k8s.get-pods", Params: map[string]Constraint{"name_space": OneOf("kube-dns1")}},
	} {
		got, err := ParseSpec(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestMalformedSpecsAreRefused(t *testing.T) {
	many := "app.verb:a=" + strings.Repeat("x|", 64) + "x"
	for _, text := range []string{
		"", "verb", "app.", ".verb", "app.verb.more", "App.verb", "app.vérb", "app verb", "1app.verb",
		"app.verb:", "app.verb:a", "app.verb:=1", "app.verb:a=", "app.verb:a=1,", "app.verb:a=1,,b=2", "app.verb:a=1;b=2,c",
		"app.verb:a=1,a=2", "app.verb:a=1|", "app.verb:a=|1", "app.verb:a^", "app.verb:a^=", "app.verb:a^1", "app.verb:A=1",
		"app.verb:a=5..1", `app.verb:a="x`, `app.verb:a="x"y`, `app.verb:a=x"y"`, `app.verb:a=x\y`, `app.verb:a="\n"`,
		"app.verb:a=1 ,b=2\x00" + strings.Repeat("x", 4096), many,
	} {
		if spec, err := ParseSpec(text); !errors.Is(err, ErrSpec) && err == nil {
			t.Errorf("%.60q is read as %+v", text, spec)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, text := range vectors.Load(f, root, "spec").Inputs(f, "text", false) {
		f.Add(string(text))
	}
	for _, seed := range []string{
		"app.verb", "app.verb:a=1|2,b=1..9,c^=x", `app.verb:a="x,\"|\\"`, "app.verb:a=-9223372036854775808..9223372036854775807",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzed(t, text, func(s string) { _, _ = ParseSpec(s) })
		spec, err := ParseSpec(text)
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		// What was read can be written, and is read as the same.
		var parts []string
		for name, c := range spec.Params {
			assign := "="
			if c.Prefix != "" {
				assign = "^="
			}
			parts = append(parts, name+assign+strings.TrimPrefix(c.String(), "^"))
			if c.Prefix == "" && strings.HasPrefix(c.String(), "^") {
				parts[len(parts)-1] = name + "=" + c.String()
			}
		}
		again := spec.Verb
		if len(parts) > 0 {
			again += ":" + strings.Join(parts, ",")
		}
		if len(again) > maxSpec {
			return // quoting has made it longer than may be read
		}
		got, err := ParseSpec(again)
		if err != nil || !reflect.DeepEqual(got, spec) {
			t.Fatalf("%q is written %q and read as %+v, %v", text, again, got, err)
		}
	})
}

// What people are shown of a verb means what it would mean typed: a comma, a bar
// or a quote inside a value is not a separator (OpenSSH CVE-2026-35414).
func TestAVerbIsShownAsItWouldBeTyped(t *testing.T) {
	bounds := []Constraint{
		OneOf("web"), OneOf("web", "api"), OneOf("a,b"), OneOf("a|b"), OneOf("a", "b|c", "d,e=f"), OneOf(`"`), OneOf(`\`, `a"b`),
		OneOf(""), OneOf("1..9"), OneOf("^x"), OneOf("=", "a:b"), OneOf(" "), Between(-5, 7), StartsWith("web-"), StartsWith("a,b|"), StartsWith(`"\`), StartsWith("1..9"),
	}
	for i, p := range bounds {
		for _, q := range bounds[i:] {
			v := Verb{Name: "app.verb", Params: []Param{{Name: "free", Allowed: AnyValue()}, {Name: "p", Allowed: p}, {Name: "q", Allowed: q}}}
			spec, err := ParseSpec(v.Spec())
			if err != nil {
				t.Errorf("%s: %v", v.Spec(), err)
				continue
			}
			want := Spec{Verb: "app.verb", Params: map[string]Constraint{"p": p, "q": q}}
			if !reflect.DeepEqual(spec, want) {
				t.Errorf("%s is read as %+v", v.Spec(), spec)
			}
		}
	}
}
