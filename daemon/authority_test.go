package daemon

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/user"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/term"
)

// countingExecutor runs nothing and remembers what it was asked to run.
type countingExecutor struct {
	mu   sync.Mutex
	runs [][]string
}

func (e *countingExecutor) Execute(_ context.Context, job executor.Job) executor.Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runs = append(e.runs, job.Argv)
	return executor.Outcome{}
}

func (e *countingExecutor) Describe(executor.Job) string { return "" }

func (e *countingExecutor) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.runs)
}

// editedVerbs are three verbs with two parameters each.
var editedVerbs = "verbs:\n" + editedVerb("app.a") + editedVerb("app.b") + editedVerb("app.c")

func editedVerb(name string) string {
	return "  " + name + `:
    class: read
    executor: exec
    argv: [/bin/echo, "{p}", "{q}"]
    params:
      p: {type: string, required: true}
      q: {type: string, default: d}
`
}

// editedRule and editedGrants are a model of the grants that is judged by
// looking values up, with nothing of the daemon's own.
type editedRule struct {
	verb   string
	bounds map[string][]string // a parameter that is not here is not bounded
}

type editedGrants struct {
	mine, to    bool // whether the issuer may act, and share with the recipient
	narrow      bool // whether recipients may have agents
	verbs       []string
	allow, deny []editedRule
}

var editedNames = []string{"app.a", "app.b", "app.c"}

func (r editedRule) matches(verb string, values map[string]string) bool {
	for name, bound := range r.bounds {
		if !slices.Contains(bound, values[name]) {
			return false
		}
	}
	return r.verb == verb
}

func anyMatches(rules []editedRule, verb string, values map[string]string) bool {
	return slices.ContainsFunc(rules, func(r editedRule) bool { return r.matches(verb, values) })
}

// allows is the grant's verdict on a call that is delegated.
func (g editedGrants) allows(verb string, values map[string]string) bool {
	return g.mine && g.to && slices.Contains(g.verbs, verb) && !anyMatches(g.deny, verb, values) && anyMatches(g.allow, verb, values)
}

func (g editedGrants) yaml(me string) string {
	list := func(rules []editedRule) string {
		var all []string
		for _, r := range rules {
			var params []string
			for name, values := range r.bounds {
				params = append(params, name+": ["+strings.Join(values, ", ")+"]")
			}
			all = append(all, "{verb: "+r.verb+", params: {"+strings.Join(params, ", ")+"}}")
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	who, to := "nobody", "someone-else"
	if g.mine {
		who = me
	}
	if g.to {
		to = "vendor-b"
	}
	return fmt.Sprintf("agents:\n  you:\n    users: [%s]\n    allow: %s\n    deny: %s\n    delegate: {to: [%s], verbs: [%s], narrow: %v}\n",
		who, list(g.allow), list(g.deny), to, strings.Join(g.verbs, ", "), g.narrow)
}

type editor struct{ *rand.Rand }

var editedValues = []string{"u", "v", "w", "d"}

func (r editor) rule() editedRule {
	rule := editedRule{verb: editedNames[r.IntN(3)], bounds: map[string][]string{}}
	for _, name := range []string{"p", "q"} {
		if r.IntN(2) == 0 {
			rule.bounds[name] = editedValues[:1+r.IntN(4)]
		}
	}
	return rule
}

func (r editor) rules(most int) []editedRule {
	rules := make([]editedRule, r.IntN(most+1))
	for i := range rules {
		rules[i] = r.rule()
	}
	return rules
}

// wide grants more than an edit leaves.
func (r editor) wide() editedGrants {
	return editedGrants{mine: true, to: true, verbs: editedNames, allow: append(r.rules(4), editedRule{verb: "app.a"}, r.rule())}
}

// edit changes one thing.
func (r editor) edit(g editedGrants) editedGrants {
	g.allow, g.deny = slices.Clone(g.allow), slices.Clone(g.deny)
	switch r.IntN(8) {
	case 0:
		g.allow = r.rules(6)
	case 1:
		g.allow = append(g.allow, r.rule())
	case 2:
		if len(g.allow) > 0 {
			i := r.IntN(len(g.allow))
			g.allow = slices.Delete(g.allow, i, i+1)
		}
	case 3:
		g.deny = r.rules(2)
	case 4:
		g.deny = nil
	case 5:
		g.mine = r.IntN(4) > 0
	case 6:
		g.to = r.IntN(4) > 0
	case 7:
		g.verbs = editedNames[:1+r.IntN(3)]
	}
	return g
}

// live puts grants into force, as a reload would.
func (h *hostileHalf) live(c *catalog.Catalog, e executor.Executor, me string, g editedGrants) {
	h.t.Helper()
	p, err := policy.Parse("grants.yaml", []byte(g.yaml(me)))
	if err != nil {
		h.t.Fatalf("%v\n%s", err, g.yaml(me))
	}
	h.rules.Store(&rules{
		policy: p, catalog: c, recipients: h.rules.Load().recipients, executors: map[string]executor.Executor{"exec": e},
	})
}

// Z3: the grants are edited ten thousand times under outstanding passports, and
// at each moment a call runs exactly when the passport and the grants both
// allow it, in the judgement of a second evaluator.
func TestACallRunsExactlyWhenPassportAndGrantBothAllowIt(t *testing.T) {
	h := newHostileHalf(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	verbs, err := catalog.Parse("verbs.yaml", []byte(editedVerbs))
	if err != nil {
		t.Fatal(err)
	}
	r, ran, allowed, tightened := editor{rand.New(rand.NewPCG(10, 11))}, new(countingExecutor), 0, 0
	for edits := 0; edits < 10_000; {
		g := r.wide()
		h.live(verbs, ran, me.Username, g)
		shared := map[string][]string{"p": editedValues[:2+r.IntN(3)]} // of app.a, which is granted whole
		s := h.openEdited("app.a:p="+strings.Join(shared["p"], "|"), "app.b")
		if s == nil {
			continue // app.b is not granted this time
		}
		opened := g
		inPassport := func(verb string, values map[string]string) bool {
			if verb == "app.a" && !slices.Contains(shared["p"], values["p"]) {
				return false
			}
			return verb != "app.c" && anyMatches(opened.allow, verb, values)
		}
		for range 500 {
			g = r.edit(g)
			h.live(verbs, ran, me.Username, g)
			edits++
			verb, values := editedNames[r.IntN(3)], map[string]string{"p": editedValues[r.IntN(4)], "q": editedValues[r.IntN(4)]}
			want := inPassport(verb, values) && g.allows(verb, values)
			if got := h.try(s, verb, values, ran); got != want {
				t.Fatalf("edit %d: %s %v ran: %v; the second evaluator: passport %v, grant %v\nopened with\n%s\nnow\n%s",
					edits, verb, values, got, inPassport(verb, values), g.allows(verb, values), opened.yaml("me"), g.yaml("me"))
			}
			if want {
				allowed++
			} else if inPassport(verb, values) {
				tightened++
			}
		}
		h.endShare(s, call.Revoked, "the test is done with it")
	}
	t.Logf("10,000 edits: %d calls ran; %d were in the passport and no longer in the grants", allowed, tightened)
	if allowed < 1000 || tightened < 1000 {
		t.Error("too few of one kind: the test shows little")
	}
}

// me is the name of who runs the tests.
func (h *hostileHalf) me() string {
	h.t.Helper()
	me, err := user.Current()
	if err != nil {
		h.t.Fatal(err)
	}
	return me.Username
}

func (h *hostileHalf) editedCatalog() *catalog.Catalog {
	h.t.Helper()
	verbs, err := catalog.Parse("verbs.yaml", []byte(editedVerbs))
	if err != nil {
		h.t.Fatal(err)
	}
	return verbs
}

// openEdited opens a session, or returns nil where the grants do not have it.
func (h *hostileHalf) openEdited(specs ...string) *share {
	h.t.Helper()
	opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: specs, TTL: 30 * time.Minute})
	if err != nil {
		return nil
	}
	parsed, err := handle.Parse(string(opened.Handle))
	if err != nil {
		h.t.Fatal(err)
	}
	s, ok := h.shareOf(parsed.RID)
	if !ok {
		h.t.Fatal("the session is not there")
	}
	return s
}

// try makes the call through the chokepoint, and says whether it ran.
func (h *hostileHalf) try(s *share, verb string, values map[string]string, ran *countingExecutor) bool {
	h.t.Helper()
	req := call.Request{Verb: verb}
	for _, name := range []string{"p", "q"} {
		if v, ok := values[name]; ok {
			req.Params = append(req.Params, call.Param{Name: name, Value: v})
		}
	}
	before := ran.count()
	act := &action{issuer: s.issuer, agent: s.Issuer.Agent, session: s.Session, meter: s.Meter, request: req}
	done := h.serveCall(h.ctx, act, newOutput(localSink(io.Discard, io.Discard), s.Meter))
	after := ran.count()
	if (done.cause == call.Exited) != (after == before+1) || done.cause != call.Exited && done.cause != call.Denied {
		h.t.Fatalf("%s ended as %v (%s), and %d commands ran", verb, done.cause, done.reason, after-before)
	}
	return after == before+1
}

// pinned are values that a set of one must refuse: what looks like it, what
// contains it, what other parsers might take for it.
func pinned(value string) []string {
	wrong := []string{
		"", " ", value + " ", " " + value, value + "\n", "\n" + value, value + "\x00", value + "\x00x", strings.ToUpper(value), value + value,
		value[:len(value)-1], value + "/", "./" + value, "../" + value, "-" + value, "--" + value, value + ",db", "db," + value, value + "|db",
		`"` + value + `"`, "'" + value + "'", value + ";id", value + "$(id)", value + "`id`", value + "&&id", "*", "?", value + "*", "[" + value + "]",
		"{" + value + "}", "%77eb", "w\u0435b", "\uff57eb", "we\u200bb", "\u202e" + value, value + "\u0301", "\xff", value + "\xff", "\xc0\xafweb",
		"db", "0", "1", "-1", "true", "null", "~", "service=" + value, value + "=db", strings.Repeat(value, 1000), value + "\r", "\t" + value, "ｗｅｂ",
	}
	return slices.DeleteFunc(wrong, func(v string) bool { return v == value })
}

// Z5: what is outside is refused when a session is opened, and refused again,
// whatever was opened, when it is called.
func TestWhatIsOutsideIsRefusedAtOpeningAndAtTheCall(t *testing.T) {
	h := newHostileHalf(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	verbs, err := catalog.Parse("verbs.yaml", []byte(strings.ReplaceAll(editedVerbs, "default: d", "enum: [d, e], default: d")))
	if err != nil {
		t.Fatal(err)
	}
	ran, cases := new(countingExecutor), 0
	g := editedGrants{mine: true, to: true, verbs: editedNames, allow: []editedRule{
		{verb: "app.a", bounds: map[string][]string{"p": {"web", "api"}}}, {verb: "app.b", bounds: map[string][]string{"p": {"web"}}}, {verb: "app.c"},
	}}
	h.live(verbs, ran, me.Username, g)
	whole := h.openEdited("app.a:p=web", "app.b")
	if whole == nil {
		t.Fatal("the honest session does not open")
	}
	refusedCall := func(verb string, params ...call.Param) {
		t.Helper()
		cases++
		act := &action{
			issuer: whole.issuer, agent: whole.Issuer.Agent, session: whole.Session, meter: whole.Meter,
			request: call.Request{Verb: verb, Params: params},
		}
		done := h.serveCall(h.ctx, act, newOutput(localSink(io.Discard, io.Discard), whole.Meter))
		if done.cause != call.Denied || ran.count() > 0 {
			t.Fatalf("%s %q: %v, %d commands ran", verb, params, done.cause, ran.count())
		}
	}
	refusedOpening := func(spec string) {
		t.Helper()
		cases++
		if s := h.openEdited(spec); s != nil {
			t.Errorf("a session with %q opens", spec)
		}
	}
	p := func(v string) call.Param { return call.Param{Name: "p", Value: v} }
	for _, value := range pinned("web") {
		for _, verb := range []string{"app.a", "app.b"} {
			refusedCall(verb, p(value))
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
			refusedOpening(verb + `:p="` + quoted + `"`)
			refusedOpening(verb + `:q="` + quoted + `"`)
			refusedCall(verb, p("web"), call.Param{Name: "q", Value: value})
		}
	}
	refusedCall("app.a", p("api")) // granted, and not in the passport: pinned again elsewhere
	for _, verb := range []string{"", "app.c", "app.d", "app", "app.", ".a", "APP.A", "app.a ", "app.a\x00", "app.\u0430", "app.a.a", "app/a", "openscope.narrow", "ssh"} {
		refusedCall(verb, p("web"))
	}
	for _, name := range []string{"", "P", "p ", "r", "service", "p\x00", "argv", "__proto__", "uid"} {
		refusedCall("app.a", p("web"), call.Param{Name: name, Value: "x"})
		refusedCall("app.a", call.Param{Name: name, Value: "web"})
	}
	refusedCall("app.a")
	refusedCall("app.a", p("web"), p("web"))
	refusedCall("app.a", p("web"), p("api"))
	refusedCall("app.a", p(strings.Repeat("x", 1_000_000)))
	for _, spec := range []string{
		"app.d", "app.a:r=x", "app.a:p=db", "app.a:p=web|db", "app.b:p=api", "app.b:p=web|api", "app.a:p^=x", "app.a:p=1..9", "app.a:q=f", "app.a:q=d|f", "openscope.narrow",
	} {
		refusedOpening(spec)
	}
	if cases < 400 {
		t.Errorf("only %d cases", cases)
	}
	if !h.try(whole, "app.a", map[string]string{"p": "web"}, ran) {
		t.Error("the honest call does not run either: the test shows nothing")
	}
	t.Logf("%d cases", cases)
}

func TestAPinOutsideAPatternOpensNothing(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.edit("grants.yaml", "{verb: test.mark}", "{verb: test.mark, params: {name: {pattern: '^[a-z]+$'}}}")
	open := func(spec string) error {
		_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{spec}, DryRun: true})
		return err
	}
	if err := open("test.mark:name=first"); err != nil {
		t.Error(err)
	}
	if err := open("test.mark:name=7"); term.CodeOf(err) != control.Denied {
		t.Errorf("%v", err)
	}
	_, m, p := h.joined()
	for name, cause := range map[string]call.Cause{"first": call.Exited, "7": call.Denied} {
		m.refresh()
		id, body, signature := m.request("test.mark", named(name))
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != cause {
			t.Errorf("%s: %v, want %v", name, r.Cause, cause)
		}
	}
}
