package policy

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// The second evaluator: a model of grants that is written as YAML for the
// policy, and judged here by brute force, with nothing of the policy's own.

type modelBound struct {
	values []string // a set, if any
	prefix string   // a prefix, if any
	digits int      // a pattern: as many digits, if any
	lo, hi int      // else a range
}

func (b modelBound) yaml() string {
	switch {
	case len(b.values) == 1:
		return strconv.Quote(b.values[0])
	case b.values != nil:
		quoted := make([]string, len(b.values))
		for i, v := range b.values {
			quoted[i] = strconv.Quote(v)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case b.prefix != "":
		return fmt.Sprintf("{prefix: %q}", b.prefix)
	}
	if b.digits > 0 {
		return fmt.Sprintf("{pattern: '^[0-9]{%d}$'}", b.digits)
	}
	return fmt.Sprintf("{min: %d, max: %d}", b.lo, b.hi)
}

// lets tries every value that the bound has.
func (b modelBound) lets(value string) bool {
	for _, v := range b.values {
		if v == value {
			return true
		}
	}
	if b.values != nil {
		return false
	}
	if b.prefix != "" {
		return len(value) >= len(b.prefix) && value[:len(b.prefix)] == b.prefix
	}
	if b.digits > 0 {
		return len(value) == b.digits && strings.Trim(value, "0123456789") == ""
	}
	for n := b.lo; n <= b.hi; n++ {
		if fmt.Sprint(n) == value {
			return true
		}
	}
	return false
}

type modelRule struct {
	verb   string
	bounds map[string]modelBound
}

func (r modelRule) yaml() string {
	if len(r.bounds) == 0 {
		return "{verb: " + r.verb + "}"
	}
	var params []string
	for name, b := range r.bounds {
		params = append(params, name+": "+b.yaml())
	}
	return "{verb: " + r.verb + ", params: {" + strings.Join(params, ", ") + "}}"
}

// matches is whether the call is one the rule is about.
func (r modelRule) matches(verb string, values map[string]string) bool {
	if r.verb != verb {
		return false
	}
	for name, b := range r.bounds {
		if v, ok := values[name]; !ok || !b.lets(v) {
			return false
		}
	}
	return true
}

type modelAgent struct {
	users, groups []string
	allow, deny   []modelRule
}

func (a modelAgent) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "users: [%s], groups: [%s]", strings.Join(a.users, ", "), strings.Join(a.groups, ", "))
	for key, rules := range map[string][]modelRule{"allow": a.allow, "deny": a.deny} {
		texts := make([]string, len(rules))
		for i, r := range rules {
			texts[i] = r.yaml()
		}
		fmt.Fprintf(&b, ", %s: [%s]", key, strings.Join(texts, ", "))
	}
	return "{" + b.String() + "}"
}

// verdict is what must come of a call, and why: the rule, or what is missing.
func (a modelAgent) verdict(who Who, verb string, values map[string]string) (allowed bool, why string) {
	may := false
	for _, u := range a.users {
		may = may || u == who.Name
	}
	for _, g := range a.groups {
		for _, of := range who.Groups {
			may = may || g == of
		}
	}
	if !may {
		return false, "may not act"
	}
	for i, r := range a.deny {
		if r.matches(verb, values) {
			return false, fmt.Sprintf("deny[%d]", i)
		}
	}
	about := false
	for i, r := range a.allow {
		if r.matches(verb, values) {
			return true, fmt.Sprintf("allow[%d]", i)
		}
		about = about || r.verb == verb
	}
	if about {
		return false, "is outside what"
	}
	return false, "no rule allows"
}

var (
	modelVerbs  = []string{"app.a", "app.b", "app.c"}
	modelValues = []string{"1", "2", "12", "20", "x", "xy", "01", "+1", "", "é", "1 "}
	modelPeople = []Who{
		{Name: "alice", Groups: []string{"staff"}}, {Name: "bob", Groups: []string{"ops", "staff"}}, {Name: "carol"}, {},
	}
)

type modelSource struct{ *rand.Rand }

func (r modelSource) some(from []string) []string {
	var out []string
	for _, v := range from {
		if r.IntN(3) == 0 {
			out = append(out, v)
		}
	}
	return out
}

func (r modelSource) bound() modelBound {
	switch r.IntN(5) {
	case 4:
		return modelBound{digits: 1 + r.IntN(2)}
	case 0:
		return modelBound{values: []string{modelValues[r.IntN(len(modelValues))]}}
	case 1:
		return modelBound{values: append(r.some(modelValues), "x")}
	case 2:
		return modelBound{prefix: []string{"1", "x", "xy", "é"}[r.IntN(4)]}
	}
	lo := r.IntN(30) - 5
	return modelBound{lo: lo, hi: lo + r.IntN(20)}
}

func (r modelSource) rules(most int) []modelRule {
	rules := make([]modelRule, r.IntN(most+1))
	for i := range rules {
		rules[i] = modelRule{verb: modelVerbs[r.IntN(3)], bounds: map[string]modelBound{}}
		for _, name := range []string{"p", "q"} {
			if r.IntN(3) == 0 {
				rules[i].bounds[name] = r.bound()
			}
		}
	}
	return rules
}

func (r modelSource) call() (who Who, verb string, values map[string]string) {
	values = map[string]string{}
	for _, name := range []string{"p", "q"} {
		if r.IntN(5) > 0 {
			values[name] = modelValues[r.IntN(len(modelValues))]
		}
	}
	return modelPeople[r.IntN(len(modelPeople))], modelVerbs[r.IntN(3)], values
}

// Z4: the policy and the second evaluator give the same verdict, for the same
// reason, on every one of 100,000 calls.
func TestTheSecondEvaluatorAgrees(t *testing.T) {
	r := modelSource{rand.New(rand.NewPCG(8, 9))}
	allowed := 0
	for range 2000 {
		a := modelAgent{users: r.some([]string{"alice", "bob"}), groups: r.some([]string{"ops", "staff"}), allow: r.rules(8), deny: r.rules(2)}
		text := "agents: {you: " + a.yaml() + "}\n"
		p := parse(t, text)
		for range 50 {
			who, verb, values := r.call()
			want, why := a.verdict(who, verb, values)
			d := p.Decide("you", who, verb, values)
			if d.Allowed != want || !strings.Contains(d.Reason, why) {
				t.Fatalf("%s\n%s %s %v: %+v, and the second evaluator says %v, %s", text, who.Name, verb, values, d, want, why)
			}
			if want {
				allowed++
			}
		}
	}
	if allowed < 10_000 {
		t.Errorf("only %d of 100,000 calls are allowed: the test shows little", allowed)
	}
	t.Logf("100,000 calls, %d allowed", allowed)
}
