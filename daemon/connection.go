package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"time"

	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// maxConnections is how many connections of one recipient stand at a time
// (wire/README.md §8).
const maxConnections = 4

// connection is the core's side of one accepted handshake.
type connection struct {
	// immutable
	id         connID
	share      *share
	key        ed25519.PublicKey
	th2        [32]byte
	resume     []channel.Resume
	challenges *session.Challenges
	ctx        context.Context // ends with the connection, with the cause
	cancel     context.CancelCauseFunc
	peer       peer
	// succeeds are the connections that this one stands in for, newest first:
	// the one that its FINISHED names, and those that one had named.
	succeeds []connID

	overRate tally // calls refused for the rate, logged once a second

	lastCall time.Duration // boot clock; the core's lock guards it
}

func (c *core) newConnection(id connID, s *share, f channel.Finished, th2 [32]byte) *connection {
	c.mu.Lock()
	parent := c.ctx
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(parent)
	return &connection{
		id: id, share: s, key: f.Key, th2: th2, resume: f.Resume, succeeds: succeeded(f),
		challenges: session.NewChallenges(c.clock, c.rand),
		ctx:        ctx, cancel: cancel,
		lastCall: c.clock.Boot(),
	}
}

// claim decides whose session it is (wire/README.md §9).
func (c *core) claim(s *share, key ed25519.PublicKey) error {
	if err := handle.CheckEd25519(key); err != nil {
		return err
	}
	first, err := s.Claim.Take(key)
	if err != nil {
		if n, due := s.claims.note(c.clock.Boot(), 10*time.Second); due {
			e := sessionEvent("refuse", s.Session)
			e.Reason, e.Count, e.RecipientKey = err.Error(), n, hex.EncodeToString(key)
			return joinErrors(err, c.record(e))
		}
		return err
	}
	if first {
		return c.record(sessionEvent("claim", s.Session))
	}
	return nil
}

// Attach makes an accepted connection live, and issues its passport.
func (c *core) Attach(id connID, p peer, facts attachment) error {
	c.mu.Lock()
	pending, ok := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if !ok || pending.accepted == nil {
		return fmt.Errorf("attaching: no such handshake")
	}
	conn := pending.accepted
	conn.peer = p
	s := conn.share
	if s.Live() != nil {
		conn.cancel(nil)
		return &endedError{Closing: closing(s.Session)}
	}
	s.Claim.AddWords(facts.SAS)
	s.NoteFrom(facts.From)
	e := conn.event("connect")
	e.From = facts.From
	if err := c.record(e); err != nil {
		conn.cancel(nil)
		c.endShare(s, call.AuditFailure, "the log could not be written")
		return &endedError{Closing: closing(s.Session)}
	}
	if err := c.welcome(conn); err != nil {
		c.Detach(id, false)
		return fmt.Errorf("attaching: %w", err)
	}
	if s.Live() != nil { // it ended while the connection was being entered
		c.Detach(id, false)
		return &endedError{Closing: closing(s.Session)}
	}
	return nil
}

// welcome enters the connection and issues its passport, in one step as far as
// newer passports are concerned.
func (c *core) welcome(conn *connection) error {
	conn.share.issuing.Lock()
	defer conn.share.issuing.Unlock()
	signed, err := c.passportFor(conn.share, conn.key)
	if err != nil {
		conn.cancel(nil)
		return err
	}
	t, err := c.admit(conn)
	if err != nil {
		conn.cancel(nil)
		return c.refuseTakeover(conn, err)
	}
	for _, displaced := range t.displaced {
		c.disconnect(displaced, call.Replaced, "another connection of yours took its place")
		c.logDisconnect(displaced)
	}
	if err := conn.peer.Issue(signed); err != nil {
		return err
	}
	c.resume(conn, t)
	return nil
}

// logDisconnect enters that a connection has ended, and why.
func (c *core) logDisconnect(conn *connection) {
	why := endedBy(context.Cause(conn.ctx))
	e := conn.event("disconnect")
	e.Cause, e.Reason = why.cause.String(), why.reason
	if err := c.record(e); err != nil {
		c.endShare(conn.share, call.AuditFailure, "the log could not be written")
	}
}

// disconnect ends one connection, and the peer is told why.
func (c *core) disconnect(conn *connection, cause call.Cause, reason string) {
	conn.cancel(&ended{cause: cause, reason: reason})
	conn.peer.Close(call.Close{Cause: cause, Text: reason})
}

// Detach leaves a lost connection's calls to themselves for a while, or ends
// them where the recipient has left for good.
func (c *core) Detach(id connID, left bool) {
	c.mu.Lock()
	conn, ok := c.connections[id]
	delete(c.connections, id)
	if ok {
		c.release(conn, left)
	}
	c.mu.Unlock()
	if !ok {
		return
	}
	conn.cancel(errLost)
	if n := conn.overRate.flush(); n > 0 {
		c.logOverRate(conn, n)
	}
	c.logDisconnect(conn)
}

// Challenge draws a fresh challenge for the connection.
func (c *core) Challenge(id connID) (call.Challenge, error) {
	conn, ok := c.connectionOf(id)
	if !ok {
		return call.Challenge{}, fmt.Errorf("drawing a challenge: no such connection")
	}
	return conn.challenges.Issue()
}

func (c *core) connectionOf(id connID) (*connection, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, ok := c.connections[id]
	return conn, ok
}

// connectionsOf returns the live connections of a share.
func (c *core) connectionsOf(s *share) []*connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*connection
	for _, conn := range c.connections {
		if conn.share == s {
			all = append(all, conn)
		}
	}
	return all
}

// passportFor signs what is delegated and still there by the rules of now, for
// the key that asks.
func (c *core) passportFor(s *share, subject ed25519.PublicKey) (passport.Signed, error) {
	grant, serial := s.Granted()
	signed, err := c.signPassport(s, c.left(c.rules.Load(), s), serial, subject)
	if err != nil { // alternatives multiply; what was delegated did fit
		return c.signPassport(s, grant, serial, subject)
	}
	return signed, nil
}

func (c *core) signPassport(s *share, grant passport.Grant, serial uint32, subject ed25519.PublicKey) (passport.Signed, error) {
	return passport.Sign(c.identity.Reveal(), passport.Passport{
		Session:   s.RID,
		Daemon:    channel.Fingerprint(c.publicKey()),
		Issuer:    s.Issuer.Agent,
		Recipient: s.Recipient.Alias,
		Subject:   subject,
		Serial:    serial,
		NotBefore: s.Opened,
		Expires:   s.Lifetime.Deadline(),
		Grant:     grant,
	})
}

// closing is the CLOSE that tells a client why its session is over.
func closing(s *session.Session) call.Close {
	cause, reason := s.Ended()
	if cause == 0 {
		cause, reason = call.Expired, "its time has passed"
	}
	return call.Close{Cause: cause, Text: reason}
}
