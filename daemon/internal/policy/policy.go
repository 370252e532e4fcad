package policy

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// Policy is a parsed grants file. It does not change; a reload makes another.
type Policy struct {
	file   string // its name, and where its keys stand, for errors
	lines  yamlfile.Lines
	agents map[string]*agent
}

// agent is one agent's grant.
type agent struct {
	users, groups []string
	runAs         string
	allow, deny   []rule
	delegation    Delegation
}

// rule is one allow or deny: a verb, and bounds that all must hold.
type rule struct {
	name   string // like grants.yaml:12 agents.you.allow[0]
	path   string // agents.you.allow[0]
	line   int
	verb   string
	params map[string]bound
}

// bound is what a rule holds a parameter to.
type bound struct {
	passport.Constraint
	// pattern, where it is set, matches the whole value. A passport has no
	// patterns, so that the surface is wider by it: it is asked at every call.
	pattern *regexp.Regexp
}

// Allows reports whether the bound lets the value through.
func (b bound) Allows(value string) bool {
	return b.Constraint.Allows(value) && (b.pattern == nil || b.pattern.MatchString(value))
}

// within is what both let through, as far as a constraint can say it. It reports
// false where that is nothing.
func (b bound) within(c passport.Constraint) (passport.Constraint, bool) {
	both, ok := b.Constraint.Intersect(c)
	if !ok || b.pattern == nil || both.Set == nil {
		return both, ok
	}
	both.Set = slices.DeleteFunc(slices.Clone(both.Set), func(v string) bool { return !b.pattern.MatchString(v) })
	return both, len(both.Set) > 0
}

// Delegation is an agent's right to delegate; without OK there is none.
type Delegation struct {
	OK                     bool
	To, Verbs              []string
	MaxTTL                 time.Duration // zero: the daemon's cap
	Bearer, NoConfirm, Raw bool
	MaxCalls               uint32 // zero: no limit of its own
	MaxOutput              uint64
	// Approve names the verbs of which every call waits for a person's answer;
	// with TwoPeople that person is not the issuer.
	Approve   []string
	TwoPeople bool
	// Narrow lets a recipient make child sessions: smaller, for a key of their own.
	Narrow bool
}

// Who is a user of this machine, as the kernel and the user database tell.
type Who struct {
	UID    uint32
	Name   string
	Groups []string
}

// Decision is what the policy says to one call, and which rule said it.
type Decision struct {
	Allowed      bool
	Rule, Reason string
}

// maxDelegated is the product's cap: no grant can pass it.
const maxDelegated = 30 * time.Minute

var (
	agentName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	verbName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}\.[a-z][a-z0-9_-]{0,63}$`)
)

const verbFix = "write one verb's whole name, like logs.tail: there are no wildcards"

// Empty is the policy of a missing file: it denies everything.
func Empty() *Policy { return &Policy{agents: map[string]*agent{}} }

// Parse reads a grants file; the name is for messages. The error is a
// [yamlfile.Mistakes].
func Parse(name string, data []byte) (*Policy, error) {
	var file grantsFile
	wrong := &collector{yamlfile.NewCollector(name, yamlfile.Lines{})}
	if !wrong.Decode(data, &file) {
		return nil, wrong.Err()
	}
	p := Empty()
	p.file, p.lines = name, wrong.Lines()
	for _, name := range sortedKeys(file.Agents) {
		if !agentName.MatchString(name) {
			wrong.add("agents/"+name, errors.New("an agent's name is lower-case letters, digits, _ and -"), "rename the agent")
			continue
		}
		p.agents[name] = wrong.newAgent("agents/"+name, file.Agents[name])
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

const noVerbFix = "correct its name, or add the verb to the verbs file"

// Check holds every rule to the verbs there are. A rule about a verb or a
// parameter that does not exist would never match, and one that was meant to
// deny would deny nothing. The error is a [yamlfile.Mistakes].
func (p *Policy) Check(schema []passport.Verb) error {
	wrong := &collector{yamlfile.NewCollector(p.file, p.lines)}
	for _, name := range sortedKeys(p.agents) {
		a, path := p.agents[name], "agents/"+name+"/delegate/"
		for _, r := range slices.Concat(a.deny, a.allow) {
			wrong.checkRule(r, schema)
		}
		for i, verb := range a.delegation.Verbs {
			if findVerb(schema, verb) < 0 {
				wrong.addItem(path+"verbs", i, fmt.Errorf("there is no verb %s", verb), noVerbFix)
			}
		}
		for i, verb := range a.delegation.Approve {
			if !slices.Contains(a.delegation.Verbs, verb) {
				wrong.addItem(path+"approve", i, fmt.Errorf("%s is not among delegate.verbs, and would never be asked for", verb), "add it to delegate.verbs, or drop it here")
			}
		}
	}
	return wrong.Err()
}

func (c *collector) checkRule(r rule, schema []passport.Verb) {
	i := findVerb(schema, r.verb)
	if i < 0 {
		c.AddAt(r.line, fmt.Errorf("%s: there is no verb %s", r.path, r.verb), noVerbFix)
		return
	}
	for _, name := range sortedKeys(r.params) {
		if !slices.ContainsFunc(schema[i].Params, func(p passport.Param) bool { return p.Name == name }) {
			c.AddAt(r.line, fmt.Errorf("%s: %s has no parameter %s", r.path, r.verb, name), "correct its name: "+parameterNames(schema[i]))
		}
	}
}

func parameterNames(v passport.Verb) string {
	names := make([]string, len(v.Params))
	for i, p := range v.Params {
		names[i] = p.Name
	}
	if len(names) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(names, ", ")
}

func findVerb(schema []passport.Verb, name string) int {
	return slices.IndexFunc(schema, func(v passport.Verb) bool { return v.Name == name })
}

func (c *collector) newAgent(path string, f agentFile) *agent {
	a := &agent{
		users: f.Users, groups: f.Groups, runAs: f.RunAs,
		allow: c.newRules(path+"/allow", f.Allow), deny: c.newRules(path+"/deny", f.Deny),
	}
	d := f.Delegate
	if d == nil {
		return a
	}
	path += "/delegate"
	if d.MaxTTL < 0 || d.MaxTTL > maxDelegated {
		c.add(path+"/max_ttl", fmt.Errorf("%s is not between 0 and %s", d.MaxTTL, maxDelegated), "write it like 10m, or leave it out for 30m")
	}
	for i, v := range d.Verbs {
		if !verbName.MatchString(v) {
			c.addItem(path+"/verbs", i, fmt.Errorf("%q is not app.verb", v), verbFix)
		}
	}
	a.delegation = Delegation{
		OK: true, To: d.To, Verbs: d.Verbs, MaxTTL: d.MaxTTL, Bearer: d.Bearer,
		NoConfirm: d.NoConfirm, Raw: d.Raw, MaxCalls: d.MaxCalls, MaxOutput: uint64(d.MaxOutput),
		Approve: d.Approve, TwoPeople: d.TwoPeople, Narrow: d.Narrow,
	}
	return a
}

func (c *collector) newRules(path string, rules []ruleFile) []rule {
	var all []rule
	for i, r := range rules {
		parsed := rule{path: fmt.Sprintf("%s[%d]", dotted(path), i), line: r.line, verb: r.Verb, params: map[string]bound{}}
		parsed.name = fmt.Sprintf("%s:%d %s", filepath.Base(c.File()), r.line, parsed.path)
		if len(r.wrong) == 0 && !verbName.MatchString(r.Verb) {
			r.refuse(r.line, "%w", yamlfile.WithFix(fmt.Errorf("verb: %q is not app.verb", r.Verb), verbFix))
		}
		for _, w := range r.wrong {
			c.AddAt(w.line, fmt.Errorf("%s: %w", parsed.path, w.err), ruleFix)
		}
		for name, b := range r.Params {
			parsed.params[name] = b.bound
		}
		all = append(all, parsed)
	}
	return all
}

// MayAct reports whether the user may act as the agent.
func (p *Policy) MayAct(name string, who Who) bool {
	a := p.agents[name]
	if a == nil || who.Name == "" {
		return false
	}
	return slices.Contains(a.users, who.Name) ||
		slices.ContainsFunc(a.groups, func(g string) bool { return slices.Contains(who.Groups, g) })
}

// Agents are the names of all agents, sorted.
func (p *Policy) Agents() []string { return sortedKeys(p.agents) }

// MayActAtAll reports whether there is an agent that the user may act as.
func (p *Policy) MayActAtAll(who Who) bool {
	return slices.ContainsFunc(sortedKeys(p.agents), func(name string) bool { return p.MayAct(name, who) })
}

// RunAs is the account the agent's verbs run under: the user's own, unless the
// grant says otherwise.
func (p *Policy) RunAs(name string, who Who) string {
	if a := p.agents[name]; a != nil && a.runAs != "" {
		return a.runAs
	}
	return who.Name
}

// Decide says whether the user, acting as the agent, may make the call. values
// are complete: defaults are filled in.
func (p *Policy) Decide(name string, who Who, verb string, values map[string]string) Decision {
	if !p.MayAct(name, who) {
		return Decision{Rule: "default", Reason: fmt.Sprintf("%s may not act as agent %s", who.Name, name)}
	}
	a := p.agents[name]
	for _, r := range a.deny {
		if r.denies(verb, values) {
			return Decision{Rule: r.name, Reason: "denied by " + r.name}
		}
	}
	reason := fmt.Sprintf("no rule allows agent %s to call %s", name, verb)
	for _, r := range a.allow {
		if r.verb != verb {
			continue
		}
		outside := r.outside(values)
		if outside == "" {
			return Decision{Allowed: true, Rule: r.name, Reason: "allowed by " + r.name}
		}
		reason = fmt.Sprintf("%s: %s is outside what %s allows", verb, outside, r.name)
	}
	return Decision{Rule: "default", Reason: reason}
}

// outside names the first parameter, in order, that a rule's bounds do not let
// through. A bounded parameter has to be there.
func (r rule) outside(values map[string]string) string {
	for _, name := range sortedKeys(r.params) {
		value, set := values[name]
		if !set || !r.params[name].Allows(value) {
			return name
		}
	}
	return ""
}

// denies reports whether every bound of a deny rule holds; a rule without
// bounds is about the whole verb. A parameter that is not in the call matches
// none: it reaches no command.
func (r rule) denies(verb string, values map[string]string) bool {
	return r.verb == verb && r.outside(values) == ""
}

// Delegation is the agent's right to delegate.
func (p *Policy) Delegation(name string) Delegation {
	if a := p.agents[name]; a != nil {
		return a.delegation
	}
	return Delegation{}
}

// LetsSomethingThrough reports whether some allow rule of the verb admits every
// one of the given values; the verb's other parameters are left open. It is how a
// pin outside of a pattern is found when a session is opened, and not only when
// it is called.
func (p *Policy) LetsSomethingThrough(name, verb string, pins map[string]string) bool {
	a := p.agents[name]
	return a != nil && slices.ContainsFunc(a.allow, func(r rule) bool {
		return r.verb == verb && !slices.ContainsFunc(sortedKeys(pins), func(param string) bool {
			bound, ok := r.params[param]
			return ok && !bound.Allows(pins[param])
		})
	})
}

// Surface is what the user, acting as the agent, may call: each allow rule
// within the verb's schema, as alternatives. Deny rules are not in it; they are
// asked at every call.
func (p *Policy) Surface(name string, who Who, schema []passport.Verb) passport.Grant {
	var g passport.Grant
	if !p.MayAct(name, who) {
		return g
	}
	a := p.agents[name]
	for _, v := range schema {
		if slices.ContainsFunc(a.deny, func(r rule) bool { return r.verb == v.Name && len(r.params) == 0 }) {
			continue
		}
		for _, r := range a.allow {
			if within, ok := r.within(v); ok {
				g.Verbs = append(g.Verbs, within)
			}
		}
	}
	return g
}

// within is the verb's schema narrowed by the rule's bounds. A bound on a
// parameter the schema does not have lets nothing through.
func (r rule) within(v passport.Verb) (passport.Verb, bool) {
	if r.verb != v.Name {
		return v, false
	}
	found := 0
	params := make([]passport.Param, len(v.Params))
	for i, p := range v.Params {
		params[i] = p
		bound, ok := r.params[p.Name]
		if !ok {
			continue
		}
		found++
		both, ok := bound.within(p.Allowed)
		if !ok {
			return v, false
		}
		params[i].Allowed = both
	}
	v.Params = params
	return v, found == len(r.params)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
