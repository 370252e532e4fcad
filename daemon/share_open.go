package daemon

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// OpenShare opens a session, or with DryRun only says what it would be. A
// handle is returned only after a relay has acknowledged the session.
func (c *core) OpenShare(ctx context.Context, req control.OpenRequest) (control.OpenResult, error) {
	offer, err := c.offer(ctx, req)
	if err != nil {
		return control.OpenResult{}, c.refuseOpening(ctx, req, err)
	}
	if req.DryRun {
		return c.describeOffer(offer), nil
	}
	s, secret, err := c.newShare(offer)
	if err != nil {
		return control.OpenResult{}, err
	}
	result, err := c.openShare(ctx, s, secret, offer)
	if err != nil {
		c.forgetShare(s)
		return control.OpenResult{}, err
	}
	return result, nil
}

// refuseOpening enters that somebody wanted to open what the grants do not allow,
// and returns what they are told. What was asked for is their text, and stays out.
func (c *core) refuseOpening(ctx context.Context, req control.OpenRequest, told error) error {
	who, err := asking(ctx)
	refused, ok := errors.AsType[*control.Error](told)
	if err != nil || req.DryRun || !ok || refused.Code != control.Denied {
		return told // a question or a mistake, and no attempt
	}
	if err := c.meter.Arrive(); err != nil {
		return c.refuseLocalOverRate(err)
	}
	err = c.record(audit.Event{
		Kind: "refuse", Issuer: &audit.Issuer{UID: who.UID, User: who.Name, Agent: c.knownAgent(req.Agent)},
		Decision: "deny", Cause: call.Denied.String(), Reason: "the grants do not allow the session that was asked for",
	})
	if err != nil {
		return control.Errorf(control.Over, "the log could not be written")
	}
	return told
}

// newShare makes the session's secrets and enters it; nobody can reach it yet.
func (c *core) newShare(o *offer) (*share, wire.Secret, error) {
	secret, err := wire.NewSecret(c.rand)
	if err != nil {
		return nil, secret, fmt.Errorf("opening a session: %w", err)
	}
	register, err := wire.NewSigningKey(c.rand)
	if err != nil {
		return nil, secret, fmt.Errorf("opening a session: %w", err)
	}
	id, err := drawName(c.rand, "s-")
	if err != nil {
		return nil, secret, fmt.Errorf("opening a session: %w", err)
	}
	lifetime, err := c.lifetimeOf(o)
	if err != nil {
		return nil, secret, control.Errorf(control.Usage, "%v", err)
	}
	join := channel.NewKeys(secret).JoinKey().Public().(ed25519.PublicKey)
	cfg := session.Config{
		ID:        id,
		RID:       wire.NewRendezvousID(register.Public(), join),
		Issuer:    session.Issuer{UID: o.issuer.UID, User: o.issuer.Name, Agent: o.agent},
		Recipient: session.Recipient{Alias: o.alias},
		Bearer:    o.recipient == nil,
		Note:      o.note,
		Lifetime:  lifetime,
		Limits:    o.limits,
		Approve:   o.approve,
		Grant:     o.grant,
		Parent:    o.parent,
	}
	if o.recipient == nil {
		cfg.Claim = session.NewBearerClaim(o.waived)
	} else {
		cfg.Claim = session.NewSealedClaim(o.recipient.Ed25519)
		cfg.Recipient.Key = o.recipient.Text()
	}
	s := &share{
		Session: session.New(c.clock, cfg), issuer: o.issuer, register: register, join: join,
		live: make(map[call.ID]*liveCall),
	}
	if err := c.sessions.Add(s.Session); err != nil {
		return nil, secret, control.Errorf(control.Limited, "%v", err).WithHint("run: openscope share list")
	}
	c.mu.Lock()
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	c.shares[s.RID] = s
	c.mu.Unlock()
	if _, err := c.unlocked(); err != nil { // the switch was turned meanwhile
		c.forgetShare(s)
		return nil, secret, err
	}
	if o.parent != nil && o.parent.Live() != nil { // it ended before it could be told of its child
		c.forgetShare(s)
		over := closing(o.parent)
		return nil, secret, &ended{cause: over.Cause, reason: over.Text}
	}
	return s, secret, nil
}

// lifetimeOf starts the session's time; a child's is a part of its parent's.
func (c *core) lifetimeOf(o *offer) (*session.Lifetime, error) {
	switch {
	case o.parent != nil && o.ttl == 0:
		return o.parent.Lifetime.Rest(), nil
	case o.parent != nil:
		return o.parent.Lifetime.Below(o.ttl)
	}
	return session.NewLifetime(c.clock, o.ttl, c.cfg.MaxTTL)
}

// openShare logs the opening, stands on the relays, and hands the session to
// the net half; then S is forgotten.
func (c *core) openShare(ctx context.Context, s *share, secret wire.Secret, o *offer) (control.OpenResult, error) {
	relays, err := c.network.Register(ctx, s.RID)
	if err != nil {
		return control.OpenResult{}, control.Errorf(control.Unreachable, "no relay took the session: %v", err).
			WithHint("run: openscope status")
	}
	e := sessionEvent("open", s.Session)
	e.Reason, e.RID = o.note, hex.EncodeToString(s.RID[:])
	for _, v := range o.grant.Verbs {
		e.Params = append(e.Params, auditParam(v))
	}
	if err := c.record(e); err != nil {
		return control.OpenResult{}, control.Errorf(control.Over, "%v", err)
	}
	h, err := c.handleFor(s, secret, relays, o.recipient)
	if err != nil {
		return control.OpenResult{}, err
	}
	keys := served{RID: s.RID, Mode: channel.Bearer, HandleHash: h.Hash(), Keys: channel.NewKeys(secret)}
	var recipient []byte
	if o.recipient != nil {
		keys.Mode = channel.Sealed
		recipient = o.recipient.X25519.Bytes()
		keys.Recipient = recipient
	}
	c.mu.Lock()
	s.th0 = channel.NewTranscript(keys.Mode, keys.HandleHash, recipient, s.RID)
	c.mu.Unlock()
	c.network.Serve(keys)
	result := c.describeOffer(o)
	result.ID, result.Handle = s.ID, control.HandleText(h.Text())
	result.Expires, result.HardLimit = s.Lifetime.Deadline(), s.Lifetime.HardLimit()
	result.DryRun = nil
	return result, nil
}

// handleFor is the text the issuer hands over (wire/README.md §4).
func (c *core) handleFor(s *share, secret wire.Secret, relays []wire.Relay, to *handle.RecipientKey) (handle.Handle, error) {
	h := handle.Handle{
		Sealed: to != nil, RID: s.RID, Fingerprint: channel.Fingerprint(c.publicKey()),
		HardLimit: s.Lifetime.HardLimit(), Relays: relays,
	}
	if to == nil {
		h.Secret = secret
		return h, nil
	}
	var err error
	h.Enc, h.Box, err = channel.SealSecret(c.rand, (*ecdh.PublicKey)(to.X25519), h.Header(), secret)
	if err != nil {
		return h, fmt.Errorf("sealing the handle: %w", err)
	}
	return h, nil
}

// describeOffer says exactly what the outsider could do.
func (c *core) describeOffer(o *offer) control.OpenResult {
	fp := channel.Fingerprint(c.publicKey())
	result := control.OpenResult{
		Expires:        c.clock.Wall().Add(o.ttl),
		HardLimit:      c.clock.Wall().Add(c.cfg.MaxTTL),
		Words:          handle.FingerprintWords(fp),
		FingerprintHex: hex.EncodeToString(fp[:]),
		Verbs:          verbInfos(o.grant.Verbs),
		Warnings:       o.warnings,
	}
	for _, v := range o.grant.Verbs {
		result.Approve = append(result.Approve, c.approvals(o, v.Name)...)
		result.DryRun = append(result.DryRun, c.concretes(o, v)...)
	}
	return result
}

// approvals is the verb's name if calls of it will wait for the issuer.
func (c *core) approvals(o *offer, verb string) []string {
	if slices.Contains(o.approve, verb) || slices.Contains(c.rules.Load().policy.Delegation(o.agent).Approve, verb) {
		return []string{verb}
	}
	return nil
}

// forgetShare drops a session that never reached anybody.
func (c *core) forgetShare(s *share) {
	s.End(call.Closed, "it could not be opened", c.clock.Wall())
	s.cancel(nil)
	c.dropShare(s)
	c.sessions.Forget(s.Session)
}

// drawName draws the short name people use for a session or a waiting call. It
// is no secret: every command checks who asks.
func drawName(rand io.Reader, prefix string) (string, error) {
	var b [5]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing a name: %w", err)
	}
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var id strings.Builder
	id.WriteString(prefix)
	for _, v := range b {
		id.WriteByte(alphabet[v%32])
	}
	return id.String(), nil
}
