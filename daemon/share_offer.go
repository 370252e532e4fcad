package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/handle"
)

// offer is a session that may be opened: everything was asked and allowed.
type offer struct {
	issuer    principal.Principal
	agent     string
	alias     string
	recipient *handle.RecipientKey // nil for bearer
	waived    bool
	ttl       time.Duration // zero, for a child only: all that its parent has left
	limits    session.Limits
	grant     passport.Grant
	note      string
	approve   []string         // verbs that the issuer wants to be asked for
	parent    *session.Session // of a child
	warnings  []string
}

// offer asks whether this session may be opened at all, and with what in it.
func (c *core) offer(ctx context.Context, req control.OpenRequest) (*offer, error) {
	who, err := c.actingAs(ctx, req.Agent)
	if err != nil {
		return nil, err
	}
	r, err := c.unlocked()
	if err != nil {
		return nil, err
	}
	o := &offer{issuer: who, agent: req.Agent, alias: req.To, note: req.Note}
	delegation := r.policy.Delegation(req.Agent)
	if o.recipient, err = chosenRecipient(r, req); err != nil {
		return nil, err
	}
	if o.ttl, err = c.chosenTTL(req.TTL, delegation.MaxTTL); err != nil {
		return nil, err
	}
	if req.NoConfirm && !delegation.NoConfirm {
		return nil, control.Errorf(control.Denied, "the grant of agent %s does not allow a bearer session without confirmed words", req.Agent).
			WithHint("leave out --no-confirm, and run: openscope share confirm ID WORDS")
	}
	o.waived = req.NoConfirm
	if o.grant, err = narrowed(r, policyWho(who), req.Agent, req.Specs); err != nil {
		return nil, err
	}
	if o.approve, err = chosenApprovals(req.Approve, o.grant.Verbs); err != nil {
		return nil, err
	}
	for _, v := range o.grant.Verbs {
		verb, ok := r.catalog.Verb(v.Name)
		if !ok {
			return nil, control.Errorf(control.Denied, "there is no verb %s", v.Name)
		}
		if err := mayDelegate(r, req.Agent, req.To, req.Bearer, verb); err != nil {
			return nil, control.Errorf(control.Denied, "%v", err)
		}
	}
	if o.limits, err = chosenLimits(req, delegation); err != nil {
		return nil, err
	}
	o.grant.Limits = passport.Limits{MaxCalls: o.limits.Calls, MaxOutput: o.limits.CallOutput, MaxSessionOutput: o.limits.Output}
	if req.Bearer {
		o.warnings = append(o.warnings, "whoever first uses this handle is the recipient: send it by a channel you trust")
	}
	return o, nil
}

// mayDelegate is the right to delegate, asked at opening and at every call: a
// right of its own beside the right to act.
func mayDelegate(r *rules, agent, alias string, bearer bool, verb *catalog.Verb) error {
	d := r.policy.Delegation(agent)
	switch {
	case !d.OK:
		return fmt.Errorf("the grant of agent %s has no delegate part: nothing of it may be shared", agent)
	case bearer && !d.Bearer:
		return fmt.Errorf("the grant of agent %s does not allow bearer sessions", agent)
	case !bearer && !slices.Contains(d.To, alias):
		return fmt.Errorf("the grant of agent %s does not allow sharing with %s", agent, alias)
	case !slices.Contains(d.Verbs, verb.Name):
		return fmt.Errorf("the grant of agent %s does not allow sharing %s", agent, verb.Name)
	case verb.Class == passport.Raw && !d.Raw:
		return fmt.Errorf("%s is of class raw, and the grant of agent %s does not allow sharing that", verb.Name, agent)
	}
	return nil
}

func chosenRecipient(r *rules, req control.OpenRequest) (*handle.RecipientKey, error) {
	if req.Bearer == (req.To != "") {
		return nil, control.Errorf(control.Usage, "exactly one of --to and --bearer is needed")
	}
	if req.Bearer {
		return nil, nil
	}
	known, ok := r.recipients[req.To]
	if !ok {
		return nil, control.Errorf(control.NotFound, "there is no recipient %s", req.To).
			WithHint("run: openscope recipient add " + req.To + " KEY")
	}
	key, err := handle.ParseRecipientKey(known.Key)
	if err != nil {
		return nil, control.Errorf(control.Config, "recipient %s: %v", req.To, err)
	}
	return &key, nil
}

// chosenTTL is the asked time, or the longest that is allowed by default. A
// time that is too long is refused, never replaced.
func (c *core) chosenTTL(asked, granted time.Duration) (time.Duration, error) {
	longest := c.cfg.MaxTTL
	if granted > 0 {
		longest = min(longest, granted)
	}
	if asked == 0 {
		return longest, nil
	}
	if asked < 0 || asked > session.HardCap {
		return 0, control.Errorf(control.Usage, "a session lives for more than 0 and at most %s, not %s", session.HardCap, asked)
	}
	if asked > longest {
		return 0, control.Errorf(control.Denied, "the longest session allowed here is %s, not %s", longest, asked)
	}
	return asked, nil
}

// chosenLimits are the asked ones inside the granted ones. A grant that names its
// own limit of a call's output has the last word about it, also above the
// default; the session's total is then at least one such call.
func chosenLimits(req control.OpenRequest, d policy.Delegation) (session.Limits, error) {
	l := session.DefaultLimits()
	l.Calls = d.MaxCalls
	if d.MaxOutput > 0 {
		l.CallOutput, l.Output = d.MaxOutput, max(l.Output, d.MaxOutput)
	}
	if req.MaxCalls > 0 {
		if d.MaxCalls > 0 && req.MaxCalls > d.MaxCalls {
			return l, control.Errorf(control.Denied, "at most %d calls may be shared, not %d", d.MaxCalls, req.MaxCalls)
		}
		l.Calls = req.MaxCalls
	}
	if req.MaxOutput > 0 {
		if req.MaxOutput > l.CallOutput {
			return l, control.Errorf(control.Denied, "at most %d bytes of output per call may be shared, not %d", l.CallOutput, req.MaxOutput)
		}
		l.CallOutput = req.MaxOutput
	}
	return l, nil
}

// chosenApprovals are the verbs to be asked for: shared ones, each by its name.
func chosenApprovals(asked []string, shared []passport.Verb) ([]string, error) {
	for _, name := range asked {
		if !slices.ContainsFunc(shared, func(v passport.Verb) bool { return v.Name == name }) {
			return nil, control.Errorf(control.Usage, "--approve %s: it is not among the verbs to be shared", name).
				WithHint("name it with --verb too")
		}
	}
	return asked, nil
}

// narrowed is the issuer's live surface narrowed by the specs.
func narrowed(r *rules, who policy.Who, agent string, specs []string) (passport.Grant, error) {
	if len(specs) == 0 {
		return passport.Grant{}, control.Errorf(control.Usage, "at least one --verb is needed").
			WithHint("run: openscope verbs --agent " + agent)
	}
	parsed := make([]passport.Spec, len(specs))
	for i, text := range specs {
		spec, err := passport.ParseSpec(text)
		if err != nil {
			return passport.Grant{}, control.Errorf(control.Usage, "--verb %s: %v", text, err)
		}
		parsed[i] = spec
	}
	surface := r.policy.Surface(agent, who, r.catalog.Schema())
	grant, err := surface.Narrow(parsed, passport.Limits{})
	if outside, ok := errors.AsType[*passport.OutsideError](err); ok {
		return passport.Grant{}, control.Errorf(control.Denied, "%v", outside).
			WithHint("run: openscope verbs --agent " + agent)
	}
	if err != nil {
		return passport.Grant{}, control.Errorf(control.Denied, "%v", err)
	}
	for _, v := range grant.Verbs {
		if !r.policy.LetsSomethingThrough(agent, v.Name, v.Pins()) {
			return passport.Grant{}, control.Errorf(control.Denied, "%s: no rule allows what it is pinned to", v.Name).
				WithHint("run: openscope policy explain --agent " + agent + " " + v.Name + " name=value ...")
		}
	}
	return grant, nil
}
