package daemon

import (
	"bytes"
	"context"
	"testing"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/wire/call"
	"openscope/wire/term"
)

// mallory is a user of this machine that the grants do not name.
func mallory(t *testing.T) context.Context {
	return principal.NewContext(t.Context(), principal.Principal{UID: 4711, Name: "mallory"})
}

// The log says who on this machine tried what is not theirs, and nothing of what
// they typed that means nothing here.
func TestWhatIsRefusedToUsersOfThisMachineIsInTheLog(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	mallory := mallory(t)
	secret := "hunter2"
	mine, theirs := h.me(), "mallory"
	open := func(ctx context.Context, agent, spec string) error {
		_, err := h.OpenShare(ctx, control.OpenRequest{Agent: agent, To: "vendor-b", Specs: []string{spec}, TTL: time.Minute})
		return err
	}
	runs := func(ctx context.Context, agent, verb, value string) error {
		_, err := h.Call(ctx, control.CallRequest{Agent: agent, Verb: verb, Params: []control.Param{{Name: "name", Value: value}}}, new(bytes.Buffer), new(bytes.Buffer))
		return err
	}
	for what, c := range map[string]struct {
		err  error
		want audit.Event
	}{
		"a call as another's agent": {runs(mallory, "you", "test.mark", "n1"),
			audit.Event{Kind: "deny", Issuer: &audit.Issuer{User: theirs, Agent: "you"}, Verb: "test.mark", Reason: errNotTheirAgent.Error()}},
		"a call as no agent": {runs(mallory, secret, "test.mark", secret),
			audit.Event{Kind: "deny", Issuer: &audit.Issuer{User: theirs}, Verb: "test.mark", Reason: errNotTheirAgent.Error()}},
		"a session of another's agent": {open(mallory, "you", "test.mark"),
			audit.Event{Kind: "refuse", Issuer: &audit.Issuer{User: theirs, Agent: "you"}}},
		"a session of no agent": {open(mallory, secret, "test.mark"), audit.Event{Kind: "refuse", Issuer: &audit.Issuer{User: theirs}}},
		"a session beyond the grants": {open(h.ctx, "you", "no."+secret),
			audit.Event{Kind: "refuse", Issuer: &audit.Issuer{User: mine, Agent: "you"}}},
	} {
		if term.CodeOf(c.err) != control.Denied {
			t.Errorf("%s is answered by %v", what, c.err)
		}
		h.findsOne(t, what, c.want)
	}
	if _, err := h.OpenShare(mallory, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, DryRun: true}); term.CodeOf(err) != control.Denied {
		t.Errorf("a question is answered by %v", err)
	}
	if n, _ := h.logged("refuse"); n != 3 {
		t.Errorf("%d sessions were refused in the log, not 3", n)
	}
	for _, e := range h.entries() {
		if e.Issuer != nil && bytes.Contains([]byte(e.Issuer.Agent+e.Verb+e.Reason), []byte(secret)) {
			t.Errorf("the log has what was typed: %+v", e)
		}
	}
}

// findsOne fails unless one entry says it.
func (h *hostileHalf) findsOne(t *testing.T, what string, want audit.Event) {
	t.Helper()
	n := 0
	for _, e := range h.entries() {
		if e.Kind == want.Kind && e.Issuer != nil && e.Issuer.User == want.Issuer.User && e.Issuer.Agent == want.Issuer.Agent && e.Verb == want.Verb &&
			(want.Reason == "" || e.Reason == want.Reason) && e.Decision == "deny" && e.Cause == call.Denied.String() {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%s is in the log %d times", what, n)
	}
}

// A flood of them is counted, not entered one by one.
func TestAFloodOfRefusedSessionsIsCounted(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	answers := map[term.Code]int{}
	for range 500 {
		_, err := h.OpenShare(mallory(t), control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
		answers[term.CodeOf(err)]++
	}
	if n, _ := h.logged("refuse"); n != answers[control.Denied] || n == 0 || answers[control.Limited] == 0 || len(answers) != 2 {
		t.Errorf("the log has %d entries for %v", n, answers)
	}
}
