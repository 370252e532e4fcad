package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// asking is who is at the other end of the control socket, by the kernel.
func asking(ctx context.Context) (principal.Principal, error) {
	p, ok := principal.FromContext(ctx)
	if !ok {
		return p, control.Errorf(control.Denied, "the kernel does not say who is asking")
	}
	return p, nil
}

// actingAs is who is asking, if the grants let them act as the agent.
func (c *core) actingAs(ctx context.Context, agent string) (principal.Principal, error) {
	who, err := asking(ctx)
	if err != nil {
		return who, err
	}
	if !c.rules.Load().policy.MayAct(agent, policyWho(who)) {
		return who, control.Errorf(control.Denied, "%s may not act as agent %q", who.Name, agent).
			WithHint("the grants file lists which users may: " + c.cfg.Grants)
	}
	return who, nil
}

// owned finds a session of whoever is asking. Root sees all; to anybody else a
// session that is not theirs does not exist.
func (c *core) owned(ctx context.Context, id string) (*share, error) {
	who, err := asking(ctx)
	if err != nil {
		return nil, err
	}
	if s, ok := c.sessions.ByID(id); ok && mayManage(who, s) {
		if share, ok := c.shareOf(s.RID); ok {
			return share, nil
		}
	}
	return nil, control.Errorf(control.NotFound, "there is no session %s of yours", id).
		WithHint("run: openscope share list --all")
}

// maySee also takes in those who answer for calls of others: where the grant
// asks for two people, whoever may act as the agent.
func (c *core) maySee(who principal.Principal, s *session.Session) bool {
	policy := c.rules.Load().policy
	return mayManage(who, s) || policy.Delegation(s.Issuer.Agent).TwoPeople && policy.MayAct(s.Issuer.Agent, policyWho(who))
}

func mayManage(who principal.Principal, s *session.Session) bool {
	return who.UID == 0 || who.UID == s.Issuer.UID
}

// ListShares lists the sessions of whoever is asking.
func (c *core) ListShares(ctx context.Context, req control.ListRequest) ([]control.Share, error) {
	if req.ID != "" {
		s, err := c.owned(ctx, req.ID)
		if err != nil {
			return nil, err
		}
		return []control.Share{c.describe(s.Session)}, nil
	}
	who, err := asking(ctx)
	if err != nil {
		return nil, err
	}
	list := []control.Share{}
	for _, s := range c.sessions.All() {
		if c.maySee(who, s) && (req.All || s.Live() == nil) {
			list = append(list, c.describe(s))
		}
	}
	return list, nil
}

func (c *core) describe(s *session.Session) control.Share {
	grant, _ := s.Granted()
	summary := s.Summary()
	info := control.Share{
		ID: s.ID, Agent: s.Issuer.Agent, Issuer: s.Issuer.User, Recipient: s.Recipient.Alias,
		Opened: s.Opened, Expires: s.Lifetime.Deadline(), RemainingS: s.Lifetime.Remaining().Seconds(),
		Calls: int(s.Meter.Calls()), Refused: summary.Refused, LastCall: summary.LastCall,
		From: summary.From, Note: s.Note, Error: summary.Fault,
	}
	if s.Bearer {
		info.Recipient = "(bearer)"
	}
	for _, v := range grant.Verbs {
		info.Verbs = append(info.Verbs, specText(v))
	}
	if share, ok := c.shareOf(s.RID); ok {
		info.Connections = len(c.connectionsOf(share))
	}
	info.Waiting = c.waitingOf(s)
	info.State = state(s, info.Connections)
	if cause, reason := s.Ended(); cause != 0 {
		info.Cause, info.RemainingS = cause.String(), 0
		if reason != "" {
			info.Cause += ": " + reason
		}
	}
	return info
}

func state(s *session.Session, connections int) string {
	switch {
	case s.Live() != nil:
		return "ended"
	case connections > 0 && !s.Claim.IsConfirmed():
		return "unconfirmed"
	case connections > 0:
		return "connected"
	}
	return "waiting"
}

// ExtendShare moves the deadline, never past the cap, and may add verbs, never
// past the grant. A connected client gets the new passport at once.
func (c *core) ExtendShare(ctx context.Context, req control.ExtendRequest) (control.ExtendResult, error) {
	s, err := c.owned(ctx, req.ID)
	if err != nil {
		return control.ExtendResult{}, err
	}
	if s.Live() != nil {
		return control.ExtendResult{}, control.Errorf(control.Over, "session %s is over: %s", s.ID, closing(s.Session).Cause)
	}
	if _, err := c.unlocked(); err != nil {
		return control.ExtendResult{}, err
	}
	if req.TTL == 0 && len(req.Specs) == 0 {
		return control.ExtendResult{}, control.Errorf(control.Usage, "--ttl or --verb is needed")
	}
	widened, added, err := c.widened(ctx, s, req.Specs)
	if err != nil {
		return control.ExtendResult{}, err
	}
	if req.TTL != 0 {
		if err := c.extend(s, req.TTL); err != nil {
			return control.ExtendResult{}, err
		}
	}
	if err := s.Widen(widened); err != nil {
		return control.ExtendResult{}, control.Errorf(control.Over, "session %s: %v", s.ID, err)
	}
	e := sessionEvent("extend", s.Session)
	e.Reason = "until " + s.Lifetime.Deadline().UTC().Format(time.RFC3339)
	for _, v := range added {
		e.Params = append(e.Params, auditParam(v))
	}
	if err := c.record(e); err != nil {
		c.endShare(s, call.AuditFailure, "the log could not be written")
		return control.ExtendResult{}, control.Errorf(control.Over, "session %s has ended: %v", s.ID, err)
	}
	c.reissue(s)
	result := control.ExtendResult{Expires: s.Lifetime.Deadline()}
	for _, v := range added {
		result.Added = append(result.Added, specText(v))
	}
	return result, nil
}

// widened is what is delegated with the new specs, judged as at opening.
func (c *core) widened(ctx context.Context, s *share, specs []string) (g passport.Grant, added []passport.Verb, err error) {
	g, _ = s.Granted()
	if len(specs) == 0 {
		return g, nil, nil
	}
	who, err := c.actingAs(ctx, s.Issuer.Agent)
	if err != nil {
		return g, nil, err
	}
	r := c.rules.Load()
	more, err := c.narrowed(r, who, s.Issuer.Agent, specs, nil)
	if err != nil {
		return g, nil, err
	}
	for _, v := range more.Verbs {
		verb, _ := r.catalog.Verb(v.Name)
		if err := mayDelegate(r, s.Issuer.Agent, s.Recipient.Alias, s.Bearer, verb); err != nil {
			return g, nil, control.Errorf(control.Denied, "%v", err)
		}
	}
	both := g
	both.Verbs = append(append([]passport.Verb(nil), g.Verbs...), more.Verbs...)
	return both, more.Verbs, nil
}

func (c *core) extend(s *share, ttl time.Duration) error {
	if granted := c.rules.Load().policy.Delegation(s.Issuer.Agent).MaxTTL; granted > 0 && ttl > granted {
		return control.Errorf(control.Denied, "the grant of agent %s allows at most %s", s.Issuer.Agent, granted)
	}
	err := s.Lifetime.Extend(ttl)
	if tooLong, ok := errors.AsType[*session.TooLongError](err); ok {
		longest := tooLong.Longest.Truncate(time.Second)
		return control.Errorf(control.Limited, "session %s can live at most %s more", s.ID, longest).
			WithHint(fmt.Sprintf("run: openscope share extend %s --ttl %s", s.ID, longest))
	}
	if errors.Is(err, session.ErrOver) {
		return control.Errorf(control.Over, "session %s is over", s.ID)
	}
	if err != nil {
		return control.Errorf(control.Usage, "%v", err)
	}
	return nil
}

// reissue signs the new passport for every connection of the session.
func (c *core) reissue(s *share) {
	s.issuing.Lock()
	defer s.issuing.Unlock()
	for _, conn := range c.connectionsOf(s) {
		signed, err := c.passportFor(s, conn.key)
		if err == nil {
			err = conn.peer.Issue(signed)
		}
		if err != nil {
			c.logger.Warn("a passport could not be reissued", "session", s.ID, "error", err)
			conn.peer.Close(call.Close{Cause: call.Closed, Text: "the new passport could not be sent; connect again"})
		}
	}
}

// RevokeShare ends sessions now: running work dies, the peer is told why.
func (c *core) RevokeShare(ctx context.Context, req control.RevokeRequest) (control.RevokeResult, error) {
	var chosen []*share
	if req.All {
		who, err := asking(ctx)
		if err != nil {
			return control.RevokeResult{}, err
		}
		for _, s := range c.sessions.All() {
			if share, ok := c.shareOf(s.RID); ok && mayManage(who, s) && s.Live() == nil {
				chosen = append(chosen, share)
			}
		}
	} else {
		s, err := c.owned(ctx, req.ID)
		if err != nil {
			return control.RevokeResult{}, err
		}
		if s.Live() != nil {
			return control.RevokeResult{}, control.Errorf(control.Over, "session %s is over already: %s", s.ID, closing(s.Session).Cause)
		}
		chosen = []*share{s}
	}
	result := control.RevokeResult{Revoked: []string{}}
	for _, s := range chosen {
		c.endShare(s, call.Revoked, printable(req.Reason))
		result.Revoked = append(result.Revoked, s.ID)
	}
	return result, nil
}

// ConfirmShare compares the words the recipient read out with those of the
// bearer session's claim.
func (c *core) ConfirmShare(ctx context.Context, req control.ConfirmRequest) error {
	s, err := c.owned(ctx, req.ID)
	if err != nil {
		return err
	}
	if !s.Bearer {
		return control.Errorf(control.Usage, "session %s is for a registered recipient: there is nothing to confirm", s.ID)
	}
	if s.Live() != nil {
		return control.Errorf(control.Over, "session %s is over", s.ID)
	}
	differ := s.Claim.Compare(func(sas []byte) bool { return handle.MatchSessionWords(sas, req.Words) })
	if errors.Is(differ, session.ErrNotClaimed) {
		return control.Errorf(control.NotFound, "session %s: %v", s.ID, differ).
			WithHint("the recipient connects first, and then reads four words to you")
	}
	e := sessionEvent("confirm", s.Session)
	e.Decision = "allow"
	if differ != nil {
		e.Decision, e.Reason = "deny", differ.Error()
	}
	if err := c.record(e); err != nil {
		c.endShare(s, call.AuditFailure, "the log could not be written")
		return control.Errorf(control.Over, "%v", err)
	}
	if differ != nil {
		return control.Errorf(control.Denied, "session %s: %v: somebody else may have the handle", s.ID, differ).
			WithHint("run: openscope share revoke " + s.ID)
	}
	s.Claim.Confirm()
	return nil
}

// endShare ends a session for everybody: its calls are killed, its clients are
// told, the log has it. Only the first end counts. It does not wait for the
// calls: each logs its own outcome.
func (c *core) endShare(s *share, cause call.Cause, reason string) {
	if !s.End(cause, reason, c.clock.Wall()) {
		return
	}
	for _, conn := range c.connectionsOf(s) {
		c.disconnect(conn, cause, reason)
	}
	kind := "close"
	switch cause {
	case call.Revoked:
		kind = "revoke"
	case call.Expired:
		kind = "expire"
	}
	e := sessionEvent(kind, s.Session)
	e.Cause, e.Reason = cause.String(), reason
	// The session is over whether or not this can be written; record has said so.
	_ = c.record(e)
}

// watchInterval is how often deadlines are looked at, whatever they are said
// to be: timers stand still while the machine sleeps, a ticker notices after
// waking, and every call asks anew.
const watchInterval = 100 * time.Millisecond

// watch ends sessions at their deadline and forgets them at their hard limit.
func (c *core) watch(ctx context.Context) {
	timer := time.NewTimer(watchInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			c.sweep()
			timer.Reset(c.untilNextDeadline())
		}
	}
}

// untilNextDeadline is the time to the next deadline, and at most watchInterval.
func (c *core) untilNextDeadline() time.Duration {
	next := watchInterval
	for _, s := range c.sessions.All() {
		if left := s.Lifetime.Remaining(); left > 0 {
			next = min(next, left)
		}
	}
	return next
}

func (c *core) sweep() {
	for _, s := range c.sessions.All() {
		share, ok := c.shareOf(s.RID)
		if ok && s.Lifetime.Remaining() == 0 {
			c.endShare(share, call.Expired, "its time has passed")
		}
		if ok && s.Lifetime.HardRemaining() == 0 {
			c.dropShare(share)
		}
		if c.clock.Wall().Sub(s.Lifetime.HardLimit()) > listedFor {
			c.sessions.Forget(s)
		}
	}
}

// listedFor is how long after its hard limit a session is still listed.
const listedFor = time.Hour

// dropShare forgets the keys of a session: nobody can shake hands for it again.
func (c *core) dropShare(s *share) {
	c.network.Drop(s.RID)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.shares, s.RID)
}
