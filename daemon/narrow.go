package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// narrowing is openscope.narrow: a recipient makes a smaller handle for a key of
// their own, an agent's. The child is a session like any other, with its own
// secret and passport; it spends its parent's calls and output, and ends with it.
type narrowing struct{ *action }

// child is what was asked for, once it is allowed.
type child struct {
	to    handle.RecipientKey
	grant passport.Grant
	ttl   time.Duration // zero: all that the parent has left
}

func (n *narrowing) decide(r *rules, _ policy.Who) (rule string, err error) {
	rule = "delegate.narrow of agent " + n.agent
	switch d := r.policy.Delegation(n.agent); {
	case !d.OK:
		return rule, errDelegate(n.agent)
	case !d.Narrow:
		return rule, fmt.Errorf("the grant of agent %s does not allow smaller handles", n.agent)
	case n.session.Parent != nil:
		return rule, errors.New("a session that was narrowed is not narrowed again")
	}
	_, err = n.child()
	return rule, err
}

// child is the part of the passport, as it is now, that was asked for.
func (n *narrowing) child() (child, error) {
	var c child
	var err error
	if c.to, err = handle.ParseRecipientKey(n.values["to"]); err != nil {
		return c, fmt.Errorf("to: %w", err)
	}
	if c.to.Ed25519.Equal(n.conn.key) {
		return c, errors.New("to: the smaller handle is for another key than your own")
	}
	var specs []passport.Spec
	for _, name := range catalog.SpecParams {
		text, given := n.values[name]
		if !given {
			continue
		}
		spec, err := passport.ParseSpec(text)
		if err != nil {
			return c, err
		}
		specs = append(specs, spec)
	}
	grant, _ := n.session.Granted()
	if c.grant, err = grant.Narrow(specs, passport.Limits{}); err != nil {
		return c, err
	}
	c.ttl, err = n.ttl()
	return c, err
}

// ttl is the asked time, or zero for all that the parent has left: that is less
// by the time the child is made.
func (n *narrowing) ttl() (time.Duration, error) {
	left := n.session.Lifetime.Remaining()
	text, given := n.values["ttl_s"]
	if !given {
		return 0, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil {
		return 0, err
	}
	ttl := time.Duration(seconds) * time.Second
	if ttl > left {
		return 0, &ended{cause: call.Limit, reason: fmt.Sprintf("your own session lasts %s more, and the smaller one at most as long", left.Truncate(time.Second))}
	}
	return ttl, nil
}

// Describe says what the call comes to.
func (n *narrowing) Describe(executor.Job) string {
	c, err := n.child()
	if err != nil {
		return "a smaller handle: " + err.Error()
	}
	return fmt.Sprintf("a smaller handle for %s, with %s", c.to.Text(), strings.Join(specTexts(c.grant.Verbs), " "))
}

// Execute opens the child and prints its handle. Where that cannot be reached,
// for no relay took the child, nothing of it stays.
func (n *narrowing) Execute(ctx context.Context, job executor.Job) executor.Outcome {
	text, err := n.open(ctx)
	if err != nil {
		return executor.Outcome{Status: executor.NoStatus, Err: err}
	}
	if _, err := io.WriteString(job.Stdout, text+"\n"); err != nil {
		return executor.Outcome{Status: executor.NoStatus, Err: fmt.Errorf("handing over the handle: %w", err)}
	}
	return executor.Outcome{}
}

func (n *narrowing) open(ctx context.Context) (text string, err error) {
	asked, err := n.child()
	if err != nil {
		return "", err
	}
	giveBack, err := n.session.Adopt()
	if err != nil {
		return "", &ended{cause: call.Limit, reason: err.Error()}
	}
	defer func() {
		if err != nil {
			giveBack()
		}
	}()
	o := &offer{
		issuer: n.issuer, agent: n.agent, alias: n.session.Recipient.Alias, recipient: &asked.to,
		ttl: asked.ttl, limits: n.session.Limits, grant: asked.grant, approve: n.session.Approve,
		note: n.session.Note, parent: n.session,
	}
	s, secret, err := n.core.newShare(o)
	if err != nil {
		return "", err
	}
	if err := n.core.fits(s, o.grant); err != nil {
		n.core.forgetShare(s)
		return "", err
	}
	opened, err := n.core.openShare(ctx, s, secret, o)
	if err != nil {
		n.core.forgetShare(s)
		return "", err
	}
	return string(opened.Handle), nil
}

// childrenOf are the sessions that were narrowed from this one.
func (c *core) childrenOf(s *session.Session) []*share {
	var all []*share
	for _, other := range c.sessions.All() {
		if other.Parent != s {
			continue
		}
		if child, ok := c.shareOf(other.RID); ok {
			all = append(all, child)
		}
	}
	return all
}
