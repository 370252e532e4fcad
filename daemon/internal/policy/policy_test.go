package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/passport"
)

func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("grants.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var alice = Who{UID: 1000, Name: "alice", Groups: []string{"staff"}}

func TestNothingIsAllowedThatNoRuleAllows(t *testing.T) {
	for name, text := range map[string]string{
		"empty":               "",
		"a comment":           "# nothing\n",
		"the starter":         string(StarterGrants),
		"no agents":           "agents: {}\n",
		"an agent, no rule":   "agents: {you: {users: [alice]}}\n",
		"another user":        "agents: {you: {users: [bob], allow: [{verb: app.a}]}}\n",
		"another agent":       "agents: {them: {users: [alice], allow: [{verb: app.a}]}}\n",
		"another verb":        "agents: {you: {users: [alice], allow: [{verb: app.b}]}}\n",
		"allowed and denied":  "agents: {you: {users: [alice], allow: [{verb: app.a}], deny: [{verb: app.a}]}}\n",
		"another group":       "agents: {you: {groups: [wheel], allow: [{verb: app.a}]}}\n",
		"bounds, and no such": "agents: {you: {users: [alice], allow: [{verb: app.a, params: {p: x}}]}}\n",
	} {
		if d := parse(t, text).Decide("you", alice, "app.a", map[string]string{}); d.Allowed || d.Rule == "" || d.Reason == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := Empty().Decide("you", alice, "app.a", nil); d.Allowed {
		t.Error("no policy allows something")
	}
}

func TestWhoMayActAsAnAgent(t *testing.T) {
	p := parse(t, "agents: {you: {users: [alice], groups: [ops], run_as: deploy}, them: {users: [bob]}}\n")
	for _, c := range []struct {
		agent string
		who   Who
		may   bool
	}{
		{"you", alice, true},
		{"you", Who{Name: "carol", Groups: []string{"x", "ops"}}, true},
		{"you", Who{Name: "carol", Groups: []string{"x"}}, false},
		{"you", Who{Name: "ops"}, false},
		{"you", Who{UID: 0, Name: "root"}, false},
		{"you", Who{}, false},
		{"them", alice, false},
		{"none", alice, false},
		{"", alice, false},
	} {
		if got := p.MayAct(c.agent, c.who); got != c.may {
			t.Errorf("%s as %q: %v", c.who.Name, c.agent, got)
		}
	}
	if got := p.RunAs("you", alice); got != "deploy" {
		t.Errorf("run as %s", got)
	}
	if got := p.RunAs("them", Who{Name: "bob"}); got != "bob" {
		t.Errorf("run as %s", got)
	}
}

func TestADecisionNamesItsRule(t *testing.T) {
	p := parse(t, `agents:
  you:
    users: [alice]
    allow:
      - verb: app.a
        params: {p: [x, y], n: {min: 1, max: 5}, u: {prefix: web-}, m: fast}
    deny:
      - {verb: app.a, params: {p: y}}
`)
	ok := map[string]string{"p": "x", "n": "5", "u": "web-1", "m": "fast", "free": "anything"}
	for _, c := range []struct {
		name, param, value string
		allowed            bool
		rule               string
	}{
		{"inside", "", "", true, "grants.yaml:5 agents.you.allow[0]"},
		{"denied", "p", "y", false, "grants.yaml:8 agents.you.deny[0]"},
		{"outside a set", "p", "z", false, "default"},
		{"outside a range", "n", "6", false, "default"},
		{"no integer", "n", "05", false, "default"},
		{"outside a prefix", "u", "db-1", false, "default"},
		{"outside a pin", "m", "slow", false, "default"},
	} {
		values := maps.Clone(ok)
		if c.param != "" {
			values[c.param] = c.value
		}
		if d := p.Decide("you", alice, "app.a", values); d.Allowed != c.allowed || d.Rule != c.rule {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	for name := range map[string]bool{"p": true, "n": true, "u": true, "m": true} {
		values := maps.Clone(ok)
		delete(values, name)
		if d := p.Decide("you", alice, "app.a", values); d.Allowed {
			t.Errorf("without %s: %+v", name, d)
		}
	}
}

// Two parameters of three values and their absence: small enough to try all.
var worldValues = []string{"", "1", "2", "x"}

func everyCall(f func(values map[string]string)) {
	for _, p := range worldValues {
		for _, q := range worldValues {
			values := map[string]string{"p": p, "q": q}
			maps.DeleteFunc(values, func(_, v string) bool { return v == "" })
			f(values)
		}
	}
}

func randomRule(r *rand.Rand) string {
	var params []string
	for _, name := range []string{"p", "q"} {
		switch r.IntN(5) {
		case 0:
			params = append(params, name+": "+worldValues[1+r.IntN(3)])
		case 1:
			params = append(params, fmt.Sprintf("%s: [%s, %s]", name, worldValues[1+r.IntN(3)], worldValues[1+r.IntN(3)]))
		case 2:
			params = append(params, fmt.Sprintf("%s: {min: %d, max: 2}", name, r.IntN(3)))
		}
	}
	if len(params) == 0 {
		return "{verb: app.a}"
	}
	return "{verb: app.a, params: {" + strings.Join(params, ", ") + "}}"
}

func rules(r *rand.Rand, n int) []string {
	all := make([]string, r.IntN(n))
	for i := range all {
		all[i] = randomRule(r)
	}
	return all
}

func grantsText(allow, deny []string) string {
	return fmt.Sprintf("agents: {you: {users: [alice], allow: [%s], deny: [%s]}}\n", strings.Join(allow, ", "), strings.Join(deny, ", "))
}

func TestDenyBeatsAllowInEveryOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	denied := 0
	for range 3000 {
		allow, deny := rules(r, 4), rules(r, 3)
		p := parse(t, grantsText(allow, deny))
		onlyAllow, onlyDeny := parse(t, grantsText(allow, nil)), parse(t, grantsText(deny, nil))
		slices.Reverse(allow)
		slices.Reverse(deny)
		backward := parse(t, grantsText(allow, deny))
		everyCall(func(values map[string]string) {
			got := p.Decide("you", alice, "app.a", values).Allowed
			matchesAllow := onlyAllow.Decide("you", alice, "app.a", values).Allowed
			matchesDeny := onlyDeny.Decide("you", alice, "app.a", values).Allowed
			if want := matchesAllow && !matchesDeny; got != want {
				t.Fatalf("allow %v deny %v: %v is %v, want %v", allow, deny, values, got, want)
			}
			if backward.Decide("you", alice, "app.a", values).Allowed != got {
				t.Fatalf("allow %v deny %v: the order decides about %v", allow, deny, values)
			}
			if matchesAllow && matchesDeny {
				denied++
			}
		})
	}
	if denied < 1000 {
		t.Errorf("only %d calls were both allowed and denied: the test shows little", denied)
	}
}

func TestAPatternHoldsTheWholeOfAValue(t *testing.T) {
	p := parse(t, "agents: {you: {users: [alice], allow: [{verb: app.a, params: {p: {pattern: '^web-[0-9]+|api$'}}}], deny: [{verb: app.a, params: {p: {pattern: '^web-9.*$'}}}]}}")
	for value, allowed := range map[string]bool{
		"web-1": true, "web-12": true, "api": true,
		"": false, "web-": false, "xapi": false, "apix": false, "web-1x": false, "web-1\n": false, "web-9": false, "web-91": false,
	} {
		values := map[string]string{"p": value}
		if d := p.Decide("you", alice, "app.a", values); d.Allowed != allowed {
			t.Errorf("%q: %+v", value, d)
		}
		if pinned := p.LetsSomethingThrough("you", "app.a", values); allowed && !pinned {
			t.Errorf("%q is allowed and cannot be pinned", value)
		}
	}
	if p.LetsSomethingThrough("you", "app.a", map[string]string{"p": "db"}) || p.LetsSomethingThrough("you", "app.b", nil) || p.LetsSomethingThrough("me", "app.a", nil) {
		t.Error("what no rule allows can be pinned")
	}
	// A passport has no patterns: a set is held to it, the rest is asked at the call.
	surface := func(allowed passport.Constraint) passport.Grant {
		return p.Surface("you", alice, []passport.Verb{{Name: "app.a", Class: passport.Read, Params: []passport.Param{{Name: "p", Type: "string", Allowed: allowed}}}})
	}
	if g := surface(passport.OneOf("api", "db", "web-1")); len(g.Verbs) != 1 || g.Verbs[0].Params[0].Allowed.String() != "api|web-1" {
		t.Errorf("of a set is left %+v", g)
	}
	if g := surface(passport.OneOf("db")); len(g.Verbs) != 0 {
		t.Errorf("of nothing is left %+v", g)
	}
	if g := surface(passport.AnyValue()); len(g.Verbs) != 1 || !g.Verbs[0].Params[0].Allowed.Any {
		t.Errorf("of anything is left %+v", g)
	}
}

func TestTheSurfaceShowsNothingThatIsNotAllowed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	schema := []passport.Verb{{Name: "app.a", Class: passport.Read, Params: []passport.Param{
		{Name: "p", Type: "string", Allowed: passport.AnyValue()},
		{Name: "q", Type: "string", Allowed: passport.OneOf("1", "x")},
	}}}
	shown := 0
	for range 3000 {
		allow := rules(r, 4)
		p := parse(t, grantsText(allow, nil))
		surface := p.Surface("you", alice, schema)
		everyCall(func(values map[string]string) {
			inside := surface.Allows("app.a", values) == nil
			if inside {
				shown++
			}
			if inside && !p.Decide("you", alice, "app.a", values).Allowed {
				t.Fatalf("%v: the surface shows %v, which is not allowed", allow, values)
			}
		})
	}
	if shown < 1000 {
		t.Errorf("only %d calls were shown", shown)
	}
	denied := parse(t, "agents: {you: {users: [alice], allow: [{verb: app.a}], deny: [{verb: app.a}]}}")
	if g := denied.Surface("you", alice, schema); len(g.Verbs) != 0 {
		t.Errorf("a verb that is denied altogether is shown: %+v", g)
	}
	if g := denied.Surface("you", Who{Name: "bob"}, schema); len(g.Verbs) != 0 {
		t.Errorf("somebody else is shown %+v", g)
	}
}

func TestToDelegateIsARightOfItsOwn(t *testing.T) {
	if d := parse(t, "agents: {you: {users: [alice], allow: [{verb: app.a}]}}").Delegation("you"); d.OK || len(d.To) > 0 {
		t.Errorf("%+v", d)
	}
	d := parse(t, `agents: {you: {users: [alice], delegate: {to: [v], verbs: [app.a], max_ttl: 10m, bearer: true, no_confirm: true, raw: true, max_calls: 5, max_output: 4KiB, approve: [app.a], two_people: true}}}`).Delegation("you")
	want := Delegation{OK: true, To: []string{"v"}, Verbs: []string{"app.a"}, MaxTTL: 10 * time.Minute, Bearer: true, NoConfirm: true, Raw: true, MaxCalls: 5, MaxOutput: 4096, Approve: []string{"app.a"}, TwoPeople: true}
	if fmt.Sprint(d) != fmt.Sprint(want) {
		t.Errorf("%+v", d)
	}
	if d := Empty().Delegation("you"); d.OK {
		t.Errorf("%+v", d)
	}
}

func TestRulesAboutWhatDoesNotExistAreErrors(t *testing.T) {
	schema := []passport.Verb{{Name: "app.a", Params: []passport.Param{{Name: "p"}}}}
	for text, want := range map[string]string{
		"allow: [{verb: app.b}]":                   "allow[0]: there is no verb app.b",
		"deny: [{verb: app.b}]":                    "deny[0]: there is no verb app.b",
		"deny: [{verb: app.a, params: {typo: x}}]": "app.a has no parameter typo",
		"delegate: {verbs: [app.b]}":               "there is no verb app.b",
		"delegate: {approve: [app.a]}":             "delegate.approve: app.a is not among delegate.verbs",
		"allow: [{verb: app.a, params: {p: x}}]":   "",
	} {
		err := parse(t, "agents: {you: {users: [alice], "+text+"}}").Check(schema)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestMalformedGrantsNameTheirPlace(t *testing.T) {
	bomb := "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nagents: {you: {users: *c}}\n"
	for text, want := range map[string]string{
		"agents:\n  you:\n    colour: blue\n":                                                         "grants.yaml:3: ",
		"agents:\n  you:\n    users: [a]\n    users: [b]\n":                                           "grants.yaml:4: ",
		"agents:\n  you: {}\n  you: {}\n":                                                             "grants.yaml:3: ",
		"agents:\n  you:\n    allow:\n      - {verb: app.a, params: {p: {pattern: x}}}\n":             "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - {verb: app.a, params: {p: {pattern: '^a)|(?:b$'}}}\n":   "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - {verb: app.a, params: {p: {pattern: '^a$', max: 3}}}\n": "grants.yaml:4: ",
		"agents:\n  you:\n    users: alice\n":                                                         "grants.yaml:3: ",
		"agents:\n  you:\n    allow:\n      - {verb: app.a, parms: {}}\n":                             "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - {params: {a: b}}\n":                                     "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - app.a\n":                                                "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - {verb: app}\n":                                          "grants.yaml:4: ",
		"agents:\n  you:\n    allow:\n      - {verb: app.a, params: {n: []}}\n":                       "grants.yaml:4: ",
		"agents:\n  you:\n    allow: [{verb: app.a, params: {n: {min: 5, max: 1}}}]\n":                "grants.yaml:3: ",
		"agents:\n  you:\n    allow: [{verb: app.a, params: {n: {min: 1}}}]\n":                        "grants.yaml:3: ",
		"agents:\n  you:\n    allow: [{verb: app.a, params: {n: {prefix: ''}}}]\n":                    "grants.yaml:3: ",
		"agents:\n  you:\n    allow: [{verb: app.a, params: {n: {min: a, max: b}}}]\n":                "grants.yaml:3: ",
		"agents:\n  you:\n    allow: [{verb: app.a, params: {n: [[x]]}}]\n":                           "grants.yaml:3: ",
		"agents:\n  You: {}\n":                            "grants.yaml",
		"agents: {you: {delegate: {max_ttl: 31m}}}\n":     "max_ttl",
		"agents: {you: {delegate: {max_ttl: -1m}}}\n":     "max_ttl",
		"agents: {you: {delegate: {verbs: [all]}}}\n":     "app.verb",
		"agents: {you: {delegate: {max_output: lots}}}\n": "grants.yaml:1: ",
		"agents: {you: {delegate: {max_calls: -1}}}\n":    "grants.yaml:1: ",
		"agents: {}\n---\nagents: {}\n":                   "grants.yaml",
		"hello: world\n":                                  "grants.yaml:1: ",
		"\t\n":                                            "grants.yaml:",
		"agents: [\n":                                     "grants.yaml:",
		bomb:                                              "grants.yaml:1",
		"agents: {you: &x {users: [a]}, them: *x}\n":      "grants.yaml:1",
	} {
		p, err := Parse("grants.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestTheRegistryReadsBack(t *testing.T) {
	key := "osk1" + strings.Repeat("7", 111)
	want := map[string]Recipient{"vendor-b": {Key: key, Note: `a: note # with "marks" and \ more`}, "a": {Key: key}}
	got, err := ParseRecipients("recipients.yaml", FormatRecipients(want))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseRecipients("recipients.yaml", StarterRecipients); err != nil || len(got) != 0 {
		t.Errorf("the starter: %+v, %v", got, err)
	}
	for _, text := range []string{
		"recipients:\n  v: {key: osk1, colour: blue}\n", "recipients:\n  v: {key: osk1}\n  v: {key: osk1}\n", "recipients:\n  v: {}\n",
		"recipients:\n  'a b': {key: " + key + "}\n", "recipients:\n  -x: {key: " + key + "}\n", "recipients: [v]\n", "people: {}\n",
		"recipients:\n  v: {key: " + key + ", note: \"\\e[2J\"}\n", "recipients:\n  v: {key: osk1short}\n",
	} {
		if got, err := ParseRecipients("recipients.yaml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "recipients.yaml") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(StarterGrants))
	f.Add("agents:\n  you:\n    users: [a]\n    allow: [{verb: app.a, params: {p: [x], n: {min: 1, max: 2}, u: {prefix: p}}}]\n    deny: [{verb: app.a}]\n    delegate: {to: [v], verbs: [app.a], max_ttl: 5m}\n")
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzedYAML(t, text, func(s string) { _, _ = Parse("grants.yaml", []byte(s)) })
		p, err := Parse("grants.yaml", []byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of several lines: %q", err)
			}
			return
		}
		// Nobody in particular is nobody, whatever the file says.
		if p.Decide("you", Who{}, "app.a", nil).Allowed {
			t.Fatalf("nobody may call: %q", text)
		}
	})
}

func FuzzParseRecipients(f *testing.F) {
	f.Add(string(StarterRecipients))
	f.Add("recipients:\n  v: {key: osk1, note: n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzedYAML(t, text, func(s string) { _, _ = ParseRecipients("recipients.yaml", []byte(s)) })
		known, err := ParseRecipients("recipients.yaml", []byte(text))
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("an error of several lines: %q", err)
		}
		for alias := range known {
			if err != nil || strings.ContainsAny(alias, "\n\x1b /") {
				t.Fatalf("%q is an alias, %v: %q", alias, err, text)
			}
		}
	})
}
