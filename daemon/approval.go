package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// defaultApproveWithin is how long a call waits for an answer where the
// configuration does not say.
const defaultApproveWithin = 2 * time.Minute

// waitingCall is a call that waits for a person's answer. Who takes it out of
// the core's table, and nobody else, ends its waiting.
type waitingCall struct {
	name   string // what people type; drawn here, never the recipient's id
	act    *action
	line   string // what the call comes to
	since  time.Time
	asked  *control.Asked // of a request for more; nil for a call of a verb
	answer chan answer    // takes one
}

// answer is a person's: err is why not.
type answer struct {
	err   error
	asked time.Duration // boot clock, of the PING that the caller answered
}

// needsApproval reports whether the issuer, or the grant as it is now, wants to
// be asked for this call.
func (a *action) needsApproval() bool {
	if a.session == nil {
		return false
	}
	return a.verb.Name == catalog.RequestVerb || slices.Contains(a.session.Approve, a.verb.Name) ||
		slices.Contains(a.rules.policy.Delegation(a.agent).Approve, a.verb.Name)
}

// awaitApproval holds a call until a person has answered for it: for this call,
// as it would run, once. No answer is no. What was decided before the wait is
// decided again after it.
func (c *core) awaitApproval(ctx context.Context, act *action) error {
	if !act.needsApproval() {
		return nil
	}
	w, err := c.beginWaiting(act)
	if err != nil {
		return err
	}
	defer c.takeWaiting(w.name)
	id := act.request.ID
	act.live.say(call.Notice{Kind: call.NoticePending, ID: id, Text: "waiting for the issuer to approve the call"})
	given, err := c.awaitAnswer(ctx, w)
	if err != nil {
		return err
	}
	act.live.say(call.Notice{Kind: call.NoticeAnswered, ID: id, Text: "approved"})
	if c.clock.Boot()-given.asked > session.FreshFor {
		return errAway
	}
	return c.decideAgain(act)
}

// awaitAnswer waits for the answer, and no longer than it is waited for.
func (c *core) awaitAnswer(ctx context.Context, w *waitingCall) (answer, error) {
	late := time.NewTimer(c.cfg.ApproveWithin)
	defer late.Stop()
	select {
	case given := <-w.answer:
		return given, given.err
	case <-ctx.Done():
		return answer{}, endedBy(context.Cause(ctx))
	case <-late.C:
	}
	if _, ok := c.takeWaiting(w.name); ok {
		return answer{}, fmt.Errorf("nobody approved the call within %s", c.cfg.ApproveWithin)
	}
	given := <-w.answer // somebody has just taken it, and answers at once
	return given, given.err
}

// beginWaiting enters the call into the table. A session's slots bound how many
// of its calls wait.
func (c *core) beginWaiting(act *action) (*waitingCall, error) {
	name, err := drawName(c.rand, "c-")
	if err != nil {
		return nil, fmt.Errorf("naming a waiting call: %w", err)
	}
	w := &waitingCall{name: name, act: act, line: act.line(), asked: act.asked(), since: c.clock.Wall(), answer: make(chan answer, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.tooManyRequests(act); err != nil {
		return nil, err
	}
	if c.waiting[name] != nil {
		return nil, fmt.Errorf("naming a waiting call: %s is there already", name)
	}
	c.waiting[name] = w
	info := c.waitingInfo(w)
	c.feed.publish(act.session.ID, control.Event{Time: w.since, Kind: control.EventWaiting, Call: info.ID, Verb: info.Verb, Params: info.Params, Waiting: &info})
	c.notify.waits(act, info)
	return w, nil
}

// waitingInfo is the call as people see it.
func (c *core) waitingInfo(w *waitingCall) control.WaitingCall {
	return control.WaitingCall{
		Call: w.name, ID: w.act.request.ID.String(), Verb: w.act.verb.Name, Params: paramsOf(w.act), Line: w.line,
		Since: w.since, WithinS: c.cfg.ApproveWithin.Seconds(), Asked: w.asked,
	}
}

func paramsOf(act *action) []control.Param {
	params := make([]control.Param, len(act.request.Params))
	for i, p := range act.request.Params {
		params[i] = control.Param{Name: p.Name, Value: p.Value}
	}
	return params
}

// takeWaiting takes the call out of the table: whoever gets it owes the answer.
func (c *core) takeWaiting(name string) (*waitingCall, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.waiting[name]
	delete(c.waiting, name)
	return w, ok
}

// waitingOf lists the session's calls that wait, oldest first.
func (c *core) waitingOf(s *session.Session) []control.WaitingCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []control.WaitingCall
	for _, w := range c.waiting {
		if w.act.session == s {
			list = append(list, c.waitingInfo(w))
		}
	}
	slices.SortFunc(list, func(a, b control.WaitingCall) int {
		if order := a.Since.Compare(b.Since); order != 0 {
			return order
		}
		return strings.Compare(a.Call, b.Call)
	})
	return list
}

// AnswerCall approves or refuses one waiting call.
func (c *core) AnswerCall(ctx context.Context, req control.AnswerRequest) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	w, err := c.answerable(who, req)
	if err != nil {
		return err
	}
	if req.Approve {
		return c.approve(ctx, who, w)
	}
	if _, ok := c.takeWaiting(w.name); !ok {
		return errNotWaiting(w.name)
	}
	reason := "refused by " + who.Name
	if req.Reason != "" {
		reason += ": " + printable(req.Reason)
	}
	w.answer <- answer{err: errors.New(reason)}
	return nil
}

// answerable finds a waiting call that who may answer: the issuer and root, and
// where the grant asks for two people, whoever else may act as the agent. The
// issuer may always say no.
func (c *core) answerable(who principal.Principal, req control.AnswerRequest) (*waitingCall, error) {
	c.mu.Lock()
	w, ok := c.waiting[req.Call]
	c.mu.Unlock()
	if !ok || !c.maySee(who, w.act.session) {
		return nil, errNotWaiting(req.Call)
	}
	agent := w.act.agent
	if req.Approve && who.UID == w.act.issuer.UID && c.rules.Load().policy.Delegation(agent).TwoPeople {
		return nil, control.Errorf(control.Denied, "the grant of agent %s asks for two people: nobody approves a call of their own session", agent).
			WithHint(fmt.Sprintf("somebody else who may act as %s runs: openscope share approve %s", agent, w.name))
	}
	return w, nil
}

func errNotWaiting(name string) error {
	return control.Errorf(control.NotFound, "there is no call %s of yours that waits", name).
		WithHint("run: openscope share list")
}

// approve lets the call run, once its caller has shown to be there and the log
// has the approval.
func (c *core) approve(ctx context.Context, who principal.Principal, w *waitingCall) error {
	asked := c.clock.Boot()
	if err := c.present(ctx, w.act); err != nil {
		return control.Errorf(control.Unreachable, "the caller of %s is away: the call was not approved", w.name).
			WithHint("it waits for at most " + c.cfg.ApproveWithin.String() + "; run the command again when they are back")
	}
	if _, ok := c.takeWaiting(w.name); !ok {
		return errNotWaiting(w.name)
	}
	e := w.act.event("approve")
	e.Decision, e.Reason = "allow", fmt.Sprintf("approved by %s (uid %d): %s", who.Name, who.UID, w.line)
	e.Request, e.Signature, e.TH2 = nil, nil, nil // the intent carries them
	if err := c.record(e); err != nil {
		w.answer <- answer{err: &ended{cause: call.AuditFailure, reason: "the log could not be written"}}
		return control.Errorf(control.Over, "the call was not approved: %v", err)
	}
	w.answer <- answer{asked: asked}
	return nil
}

// errAway is why a call does not run that its sender no longer waits for.
var errAway = &ended{cause: call.Stale, reason: "the caller did not answer after the wait"}

// present returns nil once the caller has answered a new PING in time: that is
// what makes a call that has waited fresh again (wire/README.md §7). A timer
// stands still while the machine sleeps; the boot clock does not. The caller of a
// call that no connection carries is away.
func (c *core) present(ctx context.Context, act *action) error {
	carrier, _ := act.live.out.carrier()
	if carrier == nil {
		return errAway
	}
	probe, cancel := context.WithTimeout(ctx, session.FreshFor)
	defer cancel()
	asked := c.clock.Boot()
	if err := carrier.Probe(probe); err != nil || c.clock.Boot()-asked > session.FreshFor {
		return errAway
	}
	return nil
}

// decideAgain asks again all that was asked before a wait, by the rules and the
// clocks as they are now. The call has to come to what it came to: what was
// answered for was that.
func (c *core) decideAgain(act *action) error {
	before := act.line()
	if err := act.resolve(c.rules.Load()); err != nil {
		return err
	}
	if err := act.withinPassport(); err != nil {
		return err
	}
	if err := act.decide(); err != nil {
		return err
	}
	if act.line() != before {
		return errors.New("what the call comes to has changed while it waited")
	}
	return nil
}
