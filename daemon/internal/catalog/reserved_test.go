package catalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"openscope/bench/vectors"
)

func TestParametersOfReservedVerbsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Parameters of the reserved verbs, one name=value a line: wire/README.md §6.6. What is good comes out with the parameters in order; SPECs and keys are judged further, and not here."}
	key := "to=osk1" + strings.Repeat("0", 111)
	add := func(class, name, verb string, params ...string) {
		c := vectors.Case{Name: name, Error: class, In: vectors.Values{"verb": verb, "params": strings.Join(params, "\n")}}
		if class == "" {
			slices.Sort(params)
			c.Out = vectors.Values{"params": strings.Join(params, "\n")}
		}
		file.Cases = append(file.Cases, c)
	}
	add("", "narrow, one verb", NarrowVerb, key, "verb1=test.echo:text=hello|world")
	add("", "narrow, with a time", NarrowVerb, "ttl_s=300", "verb1=test.echo", key)
	var all []string
	for _, p := range SpecParams {
		all = append(all, p+"=test.echo")
	}
	add("", "narrow, sixteen verbs", NarrowVerb, append(all, key)...)
	add("", "narrow, verbs with a gap", NarrowVerb, key, "verb1=test.echo", "verb16=test.mark")
	add("", "narrow, the longest time", NarrowVerb, key, "verb1=a.b", "ttl_s=1800")
	add("", "request", RequestVerb, "verb=test.echo:text=\"a,b\"", "reason=ticket 4711")
	add("", "request, the longest reason", RequestVerb, "verb=a.b", "reason="+strings.Repeat("~", 200))

	add("missing", "narrow, no key", NarrowVerb, "verb1=test.echo")
	add("missing", "narrow, no verb", NarrowVerb, key)
	add("missing", "narrow, only the second verb", NarrowVerb, key, "verb2=test.echo")
	add("missing", "request, no reason", RequestVerb, "verb=test.echo")
	add("missing", "request, no verb", RequestVerb, "reason=why")
	add("unknown", "narrow, a seventeenth verb", NarrowVerb, key, "verb1=a.b", "verb17=a.b")
	add("unknown", "narrow, verb without a number", NarrowVerb, key, "verb1=a.b", "verb=a.b")
	add("unknown", "narrow, verb01", NarrowVerb, key, "verb1=a.b", "verb01=a.b")
	add("unknown", "narrow, a bearer", NarrowVerb, key, "verb1=a.b", "bearer=true")
	add("unknown", "narrow, a time that is no number of seconds", NarrowVerb, key, "verb1=a.b", "ttl=5m")
	add("unknown", "request, a time", RequestVerb, "verb=a.b", "reason=why", "ttl_s=300")
	add("unknown", "request, another case", RequestVerb, "Verb=a.b", "reason=why")
	add("twice", "narrow, two keys", NarrowVerb, key, key, "verb1=a.b")
	add("twice", "narrow, a verb's place taken twice", NarrowVerb, key, "verb1=a.b", "verb1=a.c")
	add("twice", "request, two reasons", RequestVerb, "verb=a.b", "reason=why", "reason=because")
	add("integer", "narrow, a time with a unit", NarrowVerb, key, "verb1=a.b", "ttl_s=5m")
	add("integer", "narrow, a time with a sign", NarrowVerb, key, "verb1=a.b", "ttl_s=+5")
	add("integer", "narrow, a time with a zero before it", NarrowVerb, key, "verb1=a.b", "ttl_s=05")
	add("range", "narrow, no time", NarrowVerb, key, "verb1=a.b", "ttl_s=0")
	add("range", "narrow, a negative time", NarrowVerb, key, "verb1=a.b", "ttl_s=-1")
	add("range", "narrow, a second more than 30 minutes", NarrowVerb, key, "verb1=a.b", "ttl_s=1801")
	add("pattern", "narrow, an alias", NarrowVerb, "to=vendor-b", "verb1=a.b")
	add("pattern", "narrow, a key in capitals", NarrowVerb, "to=OSK1"+strings.Repeat("0", 111), "verb1=a.b")
	add("pattern", "narrow, an empty verb", NarrowVerb, key, "verb1=")
	add("pattern", "narrow, a verb beyond ASCII", NarrowVerb, key, "verb1=test.\u0435cho")
	add("pattern", "request, an empty reason", RequestVerb, "verb=a.b", "reason=")
	add("control", "request, an escape in the reason", RequestVerb, "verb=a.b", "reason=\x1b[2J")
	add("control", "request, a tab in the verb", RequestVerb, "verb=a.b\t", "reason=why")
	add("long", "narrow, a key of 116 characters", NarrowVerb, key+"0", "verb1=a.b")
	add("long", "request, a reason of 201 bytes", RequestVerb, "verb=a.b", "reason="+strings.Repeat("x", 201))
	add("none", "a verb that is not reserved", "openscope.shell")
	add("none", "another case", "openscope.Narrow")
	add("none", "no verb but their prefix", "openscope.")
	vectors.Check(t, "../../..", "reserved", file, judgeReserved, vectors.Classes{
		"missing": "is missing", "unknown": "is no parameter", "twice": "is given twice", "integer": "is not an integer",
		"range": "is not between", "pattern": "does not match", "control": "a control character", "long": "is longer", "none": "no such verb",
	})
}

func judgeReserved(_ *testing.T, in vectors.Values) (vectors.Values, error) {
	v, ok := Reserved(in["verb"])
	if !ok {
		return nil, errors.New("no such verb")
	}
	var params []Param
	for line := range strings.SplitSeq(in["params"], "\n") {
		name, value, _ := strings.Cut(line, "=")
		params = append(params, Param{Name: name, Value: value})
	}
	values, err := v.Resolve(params)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		lines = append(lines, name+"="+values[name])
	}
	slices.Sort(lines)
	return vectors.Values{"params": strings.Join(lines, "\n")}, nil
}

func TestNoFileDefinesAVerbUnderTheDaemonsName(t *testing.T) {
	for _, name := range []string{NarrowVerb, RequestVerb, "openscope.shell"} {
		text := fmt.Sprintf("verbs:\n  %s: {class: read, executor: exec, argv: [/bin/true]}\n", name)
		if _, err := Parse("verbs.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "verbs.yaml:2:") {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := new(Catalog).Verb(name); ok {
			t.Errorf("a catalog has %s", name)
		}
	}
	if _, err := Parse("verbs.yaml", []byte("verbs:\n  openscopes.up: {class: read, executor: exec, argv: [/bin/true]}\n")); err != nil {
		t.Error(err)
	}
}
