package passport

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A world small enough to try every call there is: three verbs, two parameters,
// four values and none.
var (
	worldVerbs  = []string{"app.a", "app.b", "app.c"}
	worldParams = []string{"p", "q"}
	worldValues = []string{"1", "2", "12", "x"}
)

// everyCall yields every call of the world, and for each parameter also its
// absence.
func everyCall(f func(verb string, values map[string]string)) {
	choices := append([]string{""}, worldValues...)
	for _, verb := range append([]string{"app.none"}, worldVerbs...) {
		for _, p := range choices {
			for _, q := range choices {
				values := map[string]string{"p": p, "q": q}
				maps.DeleteFunc(values, func(_, v string) bool { return v == "" })
				f(verb, values)
			}
		}
	}
}

type source struct{ *rand.Rand }

func (r source) constraint() Constraint {
	switch r.IntN(5) {
	case 0:
		return AnyValue()
	case 1:
		return OneOf(worldValues[r.IntN(4)])
	case 2:
		return OneOf(worldValues[r.IntN(4)], worldValues[r.IntN(4)])
	case 3:
		lo := int64(r.IntN(13))
		return Between(lo, lo+int64(r.IntN(13)))
	}
	return StartsWith([]string{"1", "12", "x"}[r.IntN(3)])
}

func (r source) grant() Grant {
	var g Grant
	for range 1 + r.IntN(4) {
		v := Verb{Name: worldVerbs[r.IntN(3)], Class: Read}
		for _, name := range worldParams {
			if r.IntN(5) == 0 {
				continue // a verb without this parameter
			}
			p := Param{Name: name, Type: "string", Required: r.IntN(3) == 0, Allowed: r.constraint()}
			if !p.Required && r.IntN(2) == 0 {
				p.Default = &worldValues[r.IntN(4)]
			}
			v.Params = append(v.Params, p)
		}
		g.Verbs = append(g.Verbs, v)
	}
	return g
}

// specs mostly ask for what the grant has, so that most are not refused.
func (r source) specs(g Grant) []Spec {
	var specs []Spec
	for _, i := range r.Perm(3)[:1+r.IntN(3)] {
		if has := slices.Contains(g.names(), worldVerbs[i]); !has && r.IntN(10) > 0 {
			continue
		}
		spec := Spec{Verb: worldVerbs[i], Params: make(map[string]Constraint)}
		for _, name := range worldParams {
			if r.IntN(2) == 0 {
				spec.Params[name] = r.constraint()
			}
		}
		specs = append(specs, spec)
	}
	return specs
}

// TestNarrowingNeverWidens holds every call that a narrowed grant allows against
// the grant it came from, and against what was asked for.
func TestNarrowingNeverWidens(t *testing.T) {
	r := source{rand.New(rand.NewPCG(1, 2))}
	pairs, refused, allowed := 0, 0, 0
	for pairs < narrowedPairs {
		g, specs := r.pair()
		n, err := g.Narrow(specs, Limits{})
		if err != nil {
			refused++ // nothing to compare
			continue
		}
		pairs++
		everyCall(func(verb string, values map[string]string) {
			if n.Allows(verb, values) != nil {
				return
			}
			allowed++
			if err := g.Allows(verb, values); err != nil {
				t.Fatalf("pair %d: narrowing widened: %s %v is allowed, and the grant says %v\ngrant %+v\nspecs %+v", pairs, verb, values, err, g, specs)
			}
			if !asked(specs, verb, values) {
				t.Fatalf("pair %d: %s %v is allowed, and no spec asks for it\ngrant %+v\nspecs %+v", pairs, verb, values, g, specs)
			}
		})
	}
	t.Logf("%d pairs of a grant and a narrowing, %d allowed calls compared; %d narrowings were refused", pairs, allowed, refused)
	if allowed < 100_000 {
		t.Error("too few calls are allowed at all: the test shows little")
	}
}

func (r source) pair() (Grant, []Spec) {
	g := r.grant()
	return g, r.specs(g)
}

func asked(specs []Spec, verb string, values map[string]string) bool {
	for _, s := range specs {
		if s.Verb != verb {
			continue
		}
		for name, c := range s.Params {
			if v, set := values[name]; set && !c.Allows(v) {
				return false
			}
		}
		return true
	}
	return false
}

func allowedCalls(g Grant) []string {
	var all []string
	everyCall(func(verb string, values map[string]string) {
		if g.Allows(verb, values) == nil {
			all = append(all, verb+" p="+values["p"]+" q="+values["q"])
		}
	})
	return all
}

func TestNarrowingTwiceTheSameWayChangesNothing(t *testing.T) {
	r := source{rand.New(rand.NewPCG(3, 4))}
	compared := 0
	for range 10_000 {
		g, specs := r.pair()
		once, err := g.Narrow(specs, Limits{})
		if err != nil {
			continue
		}
		twice, err := once.Narrow(specs, Limits{})
		if err != nil {
			// A range or prefix that the grant held to a set is no longer one.
			continue
		}
		compared++
		if !slices.Equal(allowedCalls(once), allowedCalls(twice)) {
			t.Fatalf("narrowing again changes the calls\ngrant %+v\nspecs %+v", g, specs)
		}
	}
	if compared < 1000 {
		t.Errorf("only %d compared", compared)
	}
}

func TestTheOrderOfSpecsDoesNotMatter(t *testing.T) {
	r := source{rand.New(rand.NewPCG(5, 6))}
	for range 10_000 {
		g, specs := r.pair()
		forward, err := g.Narrow(specs, Limits{})
		backward, berr := g.Narrow(reversed(specs), Limits{})
		if (err == nil) != (berr == nil) {
			t.Fatalf("one order is refused: %v, %v", err, berr)
		}
		if err == nil && !slices.Equal(allowedCalls(forward), allowedCalls(backward)) {
			t.Fatalf("the order changes the calls\ngrant %+v\nspecs %+v", g, specs)
		}
	}
}

func reversed(specs []Spec) []Spec {
	out := slices.Clone(specs)
	slices.Reverse(out)
	return out
}

func TestIntersectionAndContainmentAreExact(t *testing.T) {
	r := source{rand.New(rand.NewPCG(7, 8))}
	values := append([]string{"", "0", "01", "+1", "-1", "3", "13", "24", "xx", "é"}, worldValues...)
	for range 20_000 {
		a, b := r.constraint(), r.constraint()
		both, ok := a.Intersect(b)
		within := a.Within(b)
		for _, v := range values {
			if ok && both.Allows(v) != (a.Allows(v) && b.Allows(v)) {
				t.Fatalf("%v and %v: their intersection %v is wrong about %q", a, b, both, v)
			}
			if within && a.Allows(v) && !b.Allows(v) {
				t.Fatalf("%v is said to be within %v, and %q is not", a, b, v)
			}
		}
		if !a.Within(a) {
			t.Fatalf("%v is not within itself", a)
		}
	}
	if (Constraint{}).Allows("") || (Constraint{}).Allows("x") {
		t.Error("the zero constraint allows something")
	}
	if (Grant{}).Allows("app.a", nil) == nil {
		t.Error("the zero grant allows something")
	}
}

func logs() Grant {
	hundred := "100"
	return Grant{Verbs: []Verb{{
		Name: "ssh.tail_logs", Class: Read, Params: []Param{
			{Name: "lines", Type: "integer", Default: &hundred, Allowed: Between(1, 2000)},
			{Name: "service", Type: "string", Required: true, Allowed: OneOf("web", "api", "worker")},
			{Name: "unit", Type: "string", Allowed: StartsWith("web-")},
		},
	}}}
}

func TestWhatIsOutsideTheGrantIsRefusedWithTheNearestInside(t *testing.T) {
	for _, c := range []struct{ spec, nearest string }{
		{"ssh.tail_log", "ssh.tail_logs"},
		{"ssh.reboot", "ssh.tail_logs"},
		{"ssh.tail_logs:services=web", "service"},
		{"ssh.tail_logs:service=wbe", "web"},
		{"ssh.tail_logs:service=web|db", "web"},
		{"ssh.tail_logs:lines=1..5000", "1..2000"},
		{"ssh.tail_logs:lines=0", "1..2000"},
		{"ssh.tail_logs:lines=01", "1..2000"},
		{"ssh.tail_logs:unit^=we", "^web-"},
		{"ssh.tail_logs:unit^=db-", "^web-"},
	} {
		spec, err := ParseSpec(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		_, err = logs().Narrow([]Spec{spec}, Limits{})
		outside, ok := errors.AsType[*OutsideError](err)
		if !ok || outside.Nearest != c.nearest {
			t.Errorf("%s: %v, want the nearest to be %s", c.spec, err, c.nearest)
		}
	}
	twice := []Spec{{Verb: "ssh.tail_logs"}, {Verb: "ssh.tail_logs"}}
	if _, err := logs().Narrow(twice, Limits{}); !errors.Is(err, ErrSpec) {
		t.Errorf("a verb named twice: %v", err)
	}
}

func TestCallsAreHeldToThePassport(t *testing.T) {
	spec, err := ParseSpec("ssh.tail_logs:service=web,lines=1..50,unit^=web-1")
	if err != nil {
		t.Fatal(err)
	}
	g, err := logs().Narrow([]Spec{spec}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ok := func() map[string]string { return map[string]string{"service": "web", "lines": "50", "unit": "web-1a"} }
	for _, c := range []struct {
		name    string
		change  func(map[string]string)
		allowed bool
	}{
		{"inside", func(map[string]string) {}, true},
		{"another service of the grant", func(v map[string]string) { v["service"] = "api" }, false},
		{"another case", func(v map[string]string) { v["service"] = "Web" }, false},
		{"a look-alike", func(v map[string]string) { v["service"] = "wеb" }, false},
		{"empty", func(v map[string]string) { v["service"] = "" }, false},
		{"a range's end", func(v map[string]string) { v["lines"] = "51" }, false},
		{"another way to write a number", func(v map[string]string) { v["lines"] = "050" }, false},
		{"a sign", func(v map[string]string) { v["lines"] = "+5" }, false},
		{"a space", func(v map[string]string) { v["lines"] = " 5" }, false},
		{"too big for 64 bits", func(v map[string]string) { v["lines"] = "99999999999999999999" }, false},
		{"a shorter prefix", func(v map[string]string) { v["unit"] = "web-" }, false},
		{"a bounded parameter left out", func(v map[string]string) { delete(v, "unit") }, false},
		{"a required one left out", func(v map[string]string) { delete(v, "service") }, false},
		{"an unknown one more", func(v map[string]string) { v["more"] = "x" }, false},
		{"a huge value", func(v map[string]string) { v["service"] = string(make([]byte, 1_000_000)) }, false},
	} {
		values := ok()
		c.change(values)
		if err := g.Allows("ssh.tail_logs", values); (err == nil) != c.allowed {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestLimitsOnlyFall(t *testing.T) {
	until := time.Unix(1000, 0)
	g := Grant{Verbs: logs().Verbs, Limits: Limits{MaxCalls: 10, MaxOutput: 100, Until: until}}
	for _, c := range []struct{ ask, want Limits }{
		{Limits{}, Limits{MaxCalls: 10, MaxOutput: 100, Until: until}},
		{Limits{MaxCalls: 5, MaxSessionOutput: 7}, Limits{MaxCalls: 5, MaxOutput: 100, MaxSessionOutput: 7, Until: until}},
		{Limits{MaxCalls: 50, MaxOutput: 1000, Until: until.Add(time.Hour)}, Limits{MaxCalls: 10, MaxOutput: 100, Until: until}},
		{Limits{Until: until.Add(-time.Hour)}, Limits{MaxCalls: 10, MaxOutput: 100, Until: until.Add(-time.Hour)}},
	} {
		n, err := g.Narrow([]Spec{{Verb: "ssh.tail_logs"}}, c.ask)
		if err != nil || !reflect.DeepEqual(n.Limits, c.want) {
			t.Errorf("asked for %+v: %+v (%v), want %+v", c.ask, n.Limits, err, c.want)
		}
	}
}

func TestARangeAndAPrefixOverlapWhereAValueIsInBoth(t *testing.T) {
	check := func(r Range, prefix string, want bool) {
		t.Helper()
		if got := Between(r.Lo, r.Hi).overlaps(StartsWith(prefix)); got != want {
			t.Errorf("%d..%d and ^%s: %v", r.Lo, r.Hi, prefix, got)
		}
		if got := StartsWith(prefix).overlaps(Between(r.Lo, r.Hi)); got != want {
			t.Errorf("^%s and %d..%d: %v", prefix, r.Lo, r.Hi, got)
		}
	}
	prefixes := []string{"0", "1", "2", "9", "10", "12", "99", "100", "01", "-", "-0", "-1", "-9", "-12", "-01", "x", "1x", "--1", "+1", " 1"}
	for lo := int64(-125); lo <= 125; lo += 3 {
		for hi := lo; hi <= 125; hi += 4 {
			for _, prefix := range prefixes {
				found := false
				for n := lo; n <= hi && !found; n++ {
					found = strings.HasPrefix(strconv.FormatInt(n, 10), prefix)
				}
				check(Range{lo, hi}, prefix, found)
			}
		}
	}
	all := Range{math.MinInt64, math.MaxInt64}
	for prefix, want := range map[string]bool{
		"9223372036854775807": true, "9223372036854775808": false, "-9223372036854775808": true, "-9223372036854775809": false,
		"922337203685477580": true, "99999999999999999999": false, "-92233720368547758080": false,
	} {
		check(all, prefix, want)
	}
}

// What cannot be written is an error, also where another alternative could be
// narrowed: the issuer asked for both.
func TestAnIntersectionThatCannotBeWrittenIsAnError(t *testing.T) {
	verb := func(c Constraint) Verb {
		return Verb{Name: "app.a", Class: Read, Params: []Param{{Name: "p", Type: "string", Allowed: c}}}
	}
	narrow := func(c Constraint, alternatives ...Verb) error {
		_, err := Grant{Verbs: alternatives}.Narrow([]Spec{{Verb: "app.a", Params: map[string]Constraint{"p": c}}}, Limits{})
		return err
	}
	if err := narrow(StartsWith("1"), verb(Between(12, 23)), verb(AnyValue())); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "12..23") {
		t.Errorf("a prefix of a range, and of anything: %v", err)
	}
	if err := narrow(StartsWith("web-"), verb(Between(12, 23)), verb(AnyValue())); err != nil {
		t.Errorf("a prefix that no number has: %v", err)
	}
	if err := narrow(Between(8, 15), verb(Between(1, 10)), verb(Between(5, 20))); err != nil {
		t.Errorf("a range inside one of two: %v", err)
	}
	if err := narrow(Between(8, 25), verb(Between(1, 10)), verb(Between(5, 20))); err == nil {
		t.Error("a range beyond both passes")
	}
}
