package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// Status tells anybody on this machine that the daemon is up; how many
// sessions there are is told only of their own.
func (c *core) Status(ctx context.Context) (control.Status, error) {
	status := control.Status{Started: c.started, PID: os.Getpid(), LogOK: c.log.Err() == nil}
	if l := c.rules.Load().lockdown; l != nil {
		status.Lockdown = l.refusal().Error()
	}
	if c.netStatus != nil {
		status.Network = c.netStatus()
	}
	for _, r := range c.network.Relays() {
		status.Relays = append(status.Relays, control.RelayStatus{Address: r.Address, Connected: r.Connected, Rung: r.Rung, Problem: r.Problem})
	}
	who, err := asking(ctx)
	if err != nil {
		return status, err
	}
	for _, s := range c.sessions.All() {
		if mayManage(who, s) && s.Live() == nil {
			status.Sessions++
		}
	}
	return status, nil
}

// Fingerprint is this daemon's, in words and hex.
func (c *core) Fingerprint(context.Context) (control.Fingerprint, error) {
	fp := channel.Fingerprint(c.publicKey())
	return control.Fingerprint{Words: handle.FingerprintWords(fp), Hex: hex.EncodeToString(fp[:])}, nil
}

// Agents are those that whoever asks may act as.
func (c *core) Agents(ctx context.Context) ([]string, error) {
	who, err := asking(ctx)
	if err != nil {
		return nil, err
	}
	p := c.rules.Load().policy
	return slices.DeleteFunc(p.Agents(), func(agent string) bool { return !p.MayAct(agent, policyWho(who)) }), nil
}

// Verbs is the agent's live surface, for whoever may act as it.
func (c *core) Verbs(ctx context.Context, req control.VerbsRequest) ([]control.VerbInfo, error) {
	who, err := c.actingAs(ctx, req.Agent)
	if err != nil {
		return nil, err
	}
	r := c.rules.Load()
	return verbInfos(r.policy.Surface(req.Agent, policyWho(who), r.catalog.Schema()).Verbs), nil
}

// Call makes one call from inside, through the same chokepoint as everybody.
func (c *core) Call(ctx context.Context, req control.CallRequest, stdout, stderr io.Writer) (control.CallResult, error) {
	who, err := asking(ctx)
	if err != nil {
		return control.CallResult{}, err
	}
	act := &action{issuer: who, agent: req.Agent, meter: c.meter}
	act.request.Verb = req.Verb
	for _, p := range req.Params {
		act.request.Params = append(act.request.Params, call.Param{Name: p.Name, Value: p.Value})
	}
	if _, err := io.ReadFull(c.rand, act.request.ID[:]); err != nil {
		return control.CallResult{}, fmt.Errorf("drawing a call id: %w", err)
	}
	if err := c.meter.Arrive(); err != nil {
		return control.CallResult{}, c.refuseLocalOverRate(err)
	}
	if _, err := c.actingAs(ctx, req.Agent); err != nil {
		return c.refuseLocal(act, errNotTheirAgent, err)
	}
	if _, ok := c.rules.Load().catalog.Verb(req.Verb); !ok {
		return c.refuseLocal(act, errNoSuchVerb, control.Errorf(control.NotFound, "there is no verb %q", req.Verb).
			WithHint("run: openscope verbs --agent "+req.Agent))
	}
	ctx, done := c.localContext(ctx)
	defer done()
	return localResult(act, c.serveCall(ctx, act, newOutput(localSink(stdout, stderr), c.meter))), nil
}

// What the log says of a call from inside that is refused before it is one.
var (
	errNotTheirAgent = errors.New("the grants do not let this user act as the agent")
	errNoSuchVerb    = errors.New("there is no verb of this name")
)

// refuseLocal enters a call that is refused before it is one, and answers with
// the error that told why. People paste what belongs elsewhere, and into no log:
// of names that mean nothing here only the empty one is entered.
func (c *core) refuseLocal(act *action, entered, told error) (control.CallResult, error) {
	if act.agent = c.knownAgent(act.agent); act.agent == "" {
		act.request.Params = nil // what they were to be is not known either
	}
	if !passport.IsVerbName(act.request.Verb) {
		act.request.Verb = ""
	}
	refused := c.deny(act, entered)
	if refused.cause == call.AuditFailure {
		return localResult(act, refused), nil
	}
	return control.CallResult{}, told
}

// knownAgent is the name, if the grants have it.
func (c *core) knownAgent(name string) string {
	if slices.Contains(c.rules.Load().policy.Agents(), name) {
		return name
	}
	return ""
}

func localResult(act *action, done outcome) control.CallResult {
	return control.CallResult{
		Call: act.request.ID.String(), Cause: done.cause.String(), Status: done.status, Reason: done.reason,
		StdoutBytes: done.stdout.Bytes, StderrBytes: done.stderr.Bytes,
	}
}

// refuseLocalOverRate refuses a call that came too fast. The rate is that of all
// who call from inside, and so is the entry that counts them, once a second.
func (c *core) refuseLocalOverRate(why error) error {
	n, due := c.overRate.note(c.clock.Boot(), overRatePeriod)
	if due {
		if err := c.recordLocalOverRate(n); err != nil {
			return control.Errorf(control.Over, "the log could not be written")
		}
	}
	return control.Errorf(control.Limited, "%v", why)
}

func (c *core) recordLocalOverRate(n int) error {
	return c.record(audit.Event{
		Kind: "deny", Decision: "deny", Cause: call.Limit.String(), Reason: session.ErrRate.Error(), Count: n,
	})
}

// localContext ends with the caller and with the daemon, and counts the call
// among those that Run outlives.
func (c *core) localContext(ctx context.Context) (context.Context, func()) {
	c.mu.Lock()
	working := c.localCtx
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	c.calls.begin()
	stop := context.AfterFunc(working, func() { cancel(context.Cause(working)) })
	return ctx, func() {
		stop()
		cancel(nil)
		c.calls.end()
	}
}

// Explain says which rule decides, and why, without calling anything.
func (c *core) Explain(ctx context.Context, req control.ExplainRequest) (control.Explanation, error) {
	who, err := c.actingAs(ctx, req.Agent)
	if err != nil {
		return control.Explanation{}, err
	}
	r := c.rules.Load()
	act := &action{issuer: who, agent: req.Agent}
	act.request.Verb = req.Verb
	for _, p := range req.Params {
		act.request.Params = append(act.request.Params, call.Param{Name: p.Name, Value: p.Value})
	}
	if _, ok := r.catalog.Verb(req.Verb); !ok {
		return control.Explanation{}, control.Errorf(control.NotFound, "there is no verb %q", req.Verb)
	}
	if err := act.resolve(r); err != nil {
		return control.Explanation{Rule: "the verb's schema", Reason: err.Error()}, nil
	}
	if r.lockdown != nil {
		return control.Explanation{Rule: "lockdown", Reason: r.lockdown.refusal().Error()}, nil
	}
	d := r.policy.Decide(req.Agent, policyWho(who), req.Verb, act.values)
	return control.Explanation{Allowed: d.Allowed, Rule: d.Rule, Reason: d.Reason}, nil
}
