package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
)

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
	added, err := c.added(ctx, s, req.Specs)
	if err != nil {
		return control.ExtendResult{}, err
	}
	before := s.Lifetime.Deadline()
	if req.TTL != 0 {
		if err := c.extend(s, req.TTL); err != nil {
			return control.ExtendResult{}, err
		}
	}
	if err := c.widen(s, added, "until "+s.Lifetime.Deadline().UTC().Format(time.RFC3339)); err != nil {
		return control.ExtendResult{}, control.Errorf(control.Over, "session %s: %v", s.ID, err)
	}
	c.reissue(s)
	if req.TTL != 0 {
		c.reissueChildren(s)
	}
	result := control.ExtendResult{Expires: s.Lifetime.Deadline(), Before: before, Added: []string{}}
	for _, v := range added {
		result.Added = append(result.Added, specText(v))
	}
	return result, nil
}

// added is what the specs add to what is delegated, judged as at opening.
func (c *core) added(ctx context.Context, s *share, specs []string) ([]passport.Verb, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	if s.Parent != nil {
		return nil, control.Errorf(control.Denied, "session %s was narrowed from %s, and is never more than a part of it", s.ID, s.Parent.ID).
			WithHint("run: openscope share extend " + s.Parent.ID)
	}
	who, err := c.actingAs(ctx, s.Issuer.Agent)
	if err != nil {
		return nil, err
	}
	r := c.rules.Load()
	more, err := narrowed(r, policyWho(who), s.Issuer.Agent, specs)
	if err != nil {
		return nil, err
	}
	for _, v := range more.Verbs {
		verb, _ := r.catalog.Verb(v.Name)
		if err := mayDelegate(r, s.Issuer.Agent, s.Recipient.Alias, s.Bearer, verb); err != nil {
			return nil, control.Errorf(control.Denied, "%v", err)
		}
	}
	both, _ := s.Granted()
	both.Verbs = slices.Concat(both.Verbs, more.Verbs)
	if err := c.fits(s, both); err != nil {
		return nil, control.Errorf(control.Limited, "session %s: %v", s.ID, err)
	}
	return more.Verbs, nil
}

// widen adds verbs to what is delegated, and enters what has changed in the log.
func (c *core) widen(s *share, more []passport.Verb, reason string) error {
	if err := s.Widen(more); err != nil {
		return err
	}
	e := sessionEvent("extend", s.Session)
	e.Reason = reason
	for _, v := range more {
		e.Params = append(e.Params, auditParam(v))
	}
	if err := c.record(e); err != nil {
		c.endShare(s, call.AuditFailure, "the log could not be written")
		return &ended{cause: call.AuditFailure, reason: "it has ended, for the log could not be written"}
	}
	return nil
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

// reissueChildren tells the children's clients how long they have, now that their
// parent's time has moved.
func (c *core) reissueChildren(s *share) {
	for _, child := range c.childrenOf(s.Session) {
		if child.Widen(nil) == nil { // a newer passport of the same grant
			c.reissue(child)
		}
	}
}
