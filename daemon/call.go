package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// serveCall is every call there is, a recipient's and a local one alike: one
// chokepoint, no second door. It returns once the work is gone and the outcome
// is on disk.
func (c *core) serveCall(ctx context.Context, act *action, out *output) outcome {
	if err := act.resolve(c.rules.Load()); err != nil {
		return c.deny(act, err)
	}
	if err := act.withinPassport(); err != nil {
		return c.deny(act, err)
	}
	if err := act.decide(); err != nil {
		return c.deny(act, err)
	}
	release, err := act.meter.Start()
	if err != nil {
		return c.deny(act, &ended{cause: call.Limit, reason: err.Error()})
	}
	defer release()
	if err := c.awaitConfirmation(ctx, act); err != nil {
		return c.deny(act, err)
	}
	if err := c.awaitApproval(ctx, act); err != nil {
		return c.deny(act, err)
	}
	if err := c.logIntent(act); err != nil {
		return c.unlogged(act, err)
	}
	done := c.signed(act, c.execute(ctx, act, out))
	if err := c.logOutcome(act, done); err != nil {
		return c.unlogged(act, err)
	}
	return done
}

// outcome is how a call ended, as END and the log tell it.
type outcome struct {
	cause          call.Cause
	status         int
	reason         string
	stdout, stderr call.Digest
	// suppressed is how many of the daemon's own credentials were taken out.
	suppressed int
	// end says all this to the recipient; empty for a local call.
	end signedEnd
}

// ended is the reason a context or a call was ended with: a cause for the
// peer, and words for people.
type ended struct {
	cause  call.Cause
	reason string
}

func (e *ended) Error() string {
	if e.reason == "" {
		return e.cause.String()
	}
	return e.reason
}

// endedBy is why an error or an ended context stands for the end of a call.
func endedBy(err error) *ended {
	if e, ok := errors.AsType[*ended](err); ok {
		return e
	}
	return &ended{cause: call.Cancelled, reason: "the caller went away"}
}

// awaitConfirmation holds a call of a bearer session until the issuer has
// confirmed the session words (wire/README.md §9). What was decided before the
// wait is decided again after it.
func (c *core) awaitConfirmation(ctx context.Context, act *action) error {
	if act.conn == nil || act.session.Claim.IsConfirmed() {
		return nil
	}
	id := act.request.ID
	act.live.say(call.Notice{Kind: call.NoticePending, ID: id, Text: "waiting for the issuer to confirm the session words"})
	select {
	case <-act.session.Claim.Confirmed():
	case <-ctx.Done():
		return endedBy(context.Cause(ctx))
	}
	// The sender may have gone while the call waited.
	if err := c.present(ctx, act); err != nil {
		return err
	}
	return c.decideAgain(act)
}

// execute runs the call and says how it ended. The context's cause, where it
// has one, is the call's.
func (c *core) execute(ctx context.Context, act *action, out *output) outcome {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out.begin(ctx, stop, act.maxOutput())
	job, err := act.job(out)
	if err != nil {
		return out.outcome(call.Failed, 0, err.Error())
	}
	defer c.underway(act, stop)()
	out.hide(c.secrets(act.rules, act.issuer.Name), &job)
	result := act.executor().Execute(ctx, job)
	if err := out.flush(); err != nil && result.Err == nil {
		result.Err = err
	}
	switch {
	case ctx.Err() != nil:
		why := endedBy(context.Cause(ctx))
		return out.outcome(why.cause, result.Status, why.reason)
	case result.TimedOut:
		return out.outcome(call.Timeout, result.Status, fmt.Sprintf("the verb's time of %s is up", act.verb.Timeout))
	case result.Err != nil:
		why := failure(result.Err)
		return out.outcome(why.cause, result.Status, why.reason)
	}
	return out.outcome(call.Exited, result.Status, "")
}

// failure is why the verb could not be run, or was lost.
func failure(err error) *ended {
	if e, ok := errors.AsType[*ended](err); ok {
		return e // a reserved verb says what it met
	}
	return &ended{cause: call.Failed, reason: err.Error()}
}

// job is what the executor is asked to do.
func (a *action) job(out *output) (executor.Job, error) {
	as, err := a.identity()
	if err != nil {
		return executor.Job{}, err
	}
	job := jobOf(a.verb, a.values)
	job.As, job.Issuer = as, a.issuer.Name
	job.Stdout, job.Stderr = out.stream(call.Stdout), out.stream(call.Stderr)
	return job, nil
}

// maxOutput is the lowest of the limits on this call's output.
func (a *action) maxOutput() uint64 {
	limit := a.meter.CallOutput()
	if a.verb.MaxOutput > 0 {
		limit = min(limit, uint64(a.verb.MaxOutput))
	}
	return limit
}

// logIntent makes the decision to run durable. Nothing runs before it returns.
func (c *core) logIntent(act *action) error {
	act.note()
	e := act.event("call")
	e.Decision, e.Rule = "allow", act.rule
	return c.record(e)
}

func (c *core) logOutcome(act *action, done outcome) error {
	if act.session != nil {
		act.session.NoteOutcome(done.cause)
	}
	e := act.event("result")
	e.Cause, e.Reason, e.Status = done.cause.String(), done.reason, &done.status
	e.Stdout, e.Stderr = auditDigest(done.stdout), auditDigest(done.stderr)
	e.Count = done.suppressed
	// The intent carries the request; the outcome need only name it.
	e.Params, e.Request, e.Signature, e.TH2 = nil, nil, nil, nil
	e.End, e.EndSignature = done.end.body, done.end.signature
	return c.record(e)
}

// deny records that nothing ran, and why.
func (c *core) deny(act *action, err error) outcome {
	why := &ended{cause: call.Denied, reason: err.Error()}
	if e, ok := errors.AsType[*ended](err); ok {
		why = e
	}
	if act.session != nil {
		act.session.NoteRefused()
	}
	done := c.signed(act, outcome{cause: why.cause, reason: why.reason}.withEmptyStreams())
	e := act.event("deny")
	e.Decision, e.Rule, e.Cause, e.Reason = "deny", act.rule, why.cause.String(), why.reason
	e.End, e.EndSignature = done.end.body, done.end.signature
	if err := c.record(e); err != nil {
		return c.unlogged(act, err)
	}
	return done
}

// unlogged is the outcome of a call whose record could not be written: the
// session it belongs to is over.
func (c *core) unlogged(act *action, err error) outcome {
	if act.session != nil {
		act.session.NoteFault(err.Error())
		if s, ok := c.shareOf(act.session.RID); ok {
			c.endShare(s, call.AuditFailure, "the log could not be written")
		}
	}
	return c.signed(act, outcome{cause: call.AuditFailure, reason: "the log could not be written"}.withEmptyStreams())
}

func auditDigest(d call.Digest) *audit.Digest {
	return &audit.Digest{Bytes: d.Bytes, SHA256: fmt.Sprintf("%x", d.SHA256)}
}

// overRatePeriod is how often refused calls over the rate are logged.
const overRatePeriod = time.Second

// logOverRate enters n calls that were refused for the rate alone.
func (c *core) logOverRate(conn *connection, n int) {
	e := sessionEvent("deny", conn.share.Session)
	e.Decision, e.Cause, e.Count = "deny", call.Limit.String(), n
	e.Reason = session.ErrRate.Error()
	if err := c.record(e); err != nil {
		c.endShare(conn.share, call.AuditFailure, "the log could not be written")
	}
}
