package daemon

import (
	"context"
	"errors"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
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
		ID: s.ID, Agent: s.Issuer.Agent, Issuer: s.Issuer.User, Recipient: s.Recipient.Alias, Key: s.Recipient.Key, Parent: parentID(s),
		Opened: s.Opened, Expires: s.Lifetime.Deadline(), RemainingS: s.Lifetime.Remaining().Seconds(),
		Calls: int(s.Meter.Calls()), Refused: summary.Refused, LastCall: summary.LastCall,
		From: summary.From, Note: s.Note, Error: summary.Fault, Outcomes: summary.Outcomes,
	}
	if s.Root().Bearer {
		info.Recipient = "(bearer)"
	}
	if s.Parent != nil {
		info.Calls = summary.Calls
	}
	for _, v := range grant.Verbs {
		info.Verbs = append(info.Verbs, specText(v))
	}
	if share, ok := c.shareOf(s.RID); ok {
		info.Connections = len(c.connectionsOf(share))
	}
	info.Waiting, info.Running = c.waitingOf(s), c.runningOf(s)
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
		return control.StateEnded
	case connections > 0 && !s.Claim.IsConfirmed():
		return control.StateUnconfirmed
	case connections > 0:
		return control.StateConnected
	}
	return control.StateWaiting
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
