package daemon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// action is one call on its way through the chokepoint. Its steps fill it in:
// resolve by the catalog, decide by the policy.
type action struct {
	// who asks
	issuer  principal.Principal
	agent   string
	session *session.Session // nil for a local call
	conn    *connection      // that it came by; nil for a local call
	live    *liveCall        // nil for a local call
	meter   *session.Meter
	core    *core // for the reserved verbs; nil for a local call

	// what is asked
	request   call.Request
	body      []byte // the CALL as it was signed; nil for a local call
	signature []byte

	// what it comes to, and by which rules
	rules  *rules
	verb   *catalog.Verb
	values map[string]string
	rule   string
	runAs  string
}

// resolve finds the verb and judges the parameters by its schema alone, before
// any policy is asked.
func (a *action) resolve(r *rules) error {
	verb, ok := r.catalog.Verb(a.request.Verb)
	if !ok && a.session != nil {
		verb, ok = catalog.Reserved(a.request.Verb)
	}
	if !ok {
		return fmt.Errorf("there is no verb %q", a.request.Verb)
	}
	params := make([]catalog.Param, len(a.request.Params))
	for i, p := range a.request.Params {
		params[i] = catalog.Param{Name: p.Name, Value: p.Value}
	}
	values, err := verb.Resolve(params)
	if err != nil {
		return err
	}
	a.rules, a.verb, a.values = r, verb, values
	return nil
}

// withinPassport holds a recipient's call to what was delegated and to the
// session's time, read off the clocks anew.
func (a *action) withinPassport() error {
	if a.session == nil {
		return nil
	}
	if err := a.session.Live(); err != nil {
		over := closing(a.session)
		return &ended{cause: over.Cause, reason: over.Text}
	}
	if a.reserved() != nil {
		return nil // no passport lists them: they ask the grant
	}
	grant, _ := a.session.Granted()
	return grant.Allows(a.verb.Name, a.values)
}

// decide asks the grants of the rules that resolved it, for the issuer as the system knows
// them now. The right to delegate is asked again too: a session must not
// outlive it.
func (a *action) decide() error {
	r := a.rules
	if r.lockdown != nil {
		a.rule = "lockdown"
		return r.lockdown.refusal()
	}
	who, err := a.who()
	if err != nil {
		return err
	}
	if err := a.judge(r, who); err != nil {
		return err
	}
	if a.session != nil {
		if err := a.stillDelegated(r); err != nil {
			return err
		}
	}
	a.runAs = r.policy.RunAs(a.agent, who)
	return nil
}

// judge asks the rules about the call itself.
func (a *action) judge(r *rules, who policy.Who) (err error) {
	if own := a.reserved(); own != nil {
		a.rule, err = own.decide(r, who)
		return err
	}
	d := r.policy.Decide(a.agent, who, a.verb.Name, a.values)
	a.rule = d.Rule
	if !d.Allowed {
		return errors.New(d.Reason)
	}
	return nil
}

// stillDelegated asks for the right to delegate, for the registered key, and for
// the right of a child to be there, as they are now. A child is held to whom its
// parent was opened for.
func (a *action) stillDelegated(r *rules) error {
	root := a.session.Root()
	if to := root.Recipient; !root.Bearer && r.recipients[to.Alias].Key != to.Key {
		return fmt.Errorf("the registered key of %s is no longer the one the session is for", to.Alias)
	}
	if a.session != root && !r.policy.Delegation(a.agent).Narrow {
		return fmt.Errorf("the grant of agent %s does not allow smaller handles", a.agent)
	}
	if a.reserved() != nil {
		return nil // it has asked for what it needs
	}
	return mayDelegate(r, a.agent, root.Recipient.Alias, root.Bearer, a.verb)
}

// who looks the issuer up again: an account that was removed, or whose number
// now means somebody else, has no rights left.
func (a *action) who() (policy.Who, error) {
	now, err := principal.Lookup(a.issuer.Name)
	if err != nil {
		return policy.Who{}, fmt.Errorf("the issuer's account: %w", err)
	}
	if now.UID != a.issuer.UID {
		return policy.Who{}, fmt.Errorf("the issuer's account %s is not the one that opened the session", a.issuer.Name)
	}
	return policyWho(now), nil
}

// identity is the account the work runs under.
func (a *action) identity() (executor.Identity, error) {
	p, err := principal.Lookup(a.runAs)
	if err != nil {
		return executor.Identity{}, fmt.Errorf("looking up the account to run as: %w", err)
	}
	if self := os.Geteuid(); self != 0 && int(p.UID) != self {
		return executor.Identity{}, fmt.Errorf("the daemon does not run as root, so verbs run as its own user only, not as %s", p.Name)
	}
	return executor.Identity{Name: p.Name, UID: p.UID, GID: p.GID, Groups: p.GIDs}, nil
}

// line says, for a person, what the decided call comes to.
func (a *action) line() string {
	job := jobOf(a.verb, a.values)
	job.As, job.Issuer = executor.Identity{Name: a.runAs}, a.issuer.Name
	return a.executor().Describe(job)
}

// event is a log event with everything known of the action so far.
func (a *action) event(kind string) audit.Event {
	e := audit.Event{Kind: kind, Issuer: &audit.Issuer{UID: a.issuer.UID, User: a.issuer.Name, Agent: a.agent}}
	if a.session != nil {
		e = sessionEvent(kind, a.session)
	}
	if a.conn != nil {
		e.Connection = hex.EncodeToString(a.conn.id[:])
		e.RID = hex.EncodeToString(a.conn.share.RID[:])
		e.Request, e.Signature, e.TH2 = a.body, a.signature, a.conn.th2[:]
	}
	e.Call, e.Verb = a.request.ID.String(), a.request.Verb
	for _, p := range a.request.Params {
		e.Params = append(e.Params, audit.Param{Name: p.Name, Value: p.Value})
	}
	return e
}

// note tells the issuer's list what is about to run.
func (a *action) note() {
	if a.session != nil {
		a.session.NoteCall(a.request.Verb)
	}
}

func policyWho(p principal.Principal) policy.Who {
	return policy.Who{UID: p.UID, Name: p.Name, Groups: p.Groups}
}
