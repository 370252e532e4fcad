package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
	"openscope/wire/term"
)

// asks makes the grant ask for every call of test.mark, by an edit of the
// grants file and a reload.
func (h *hostileHalf) asks(more string) {
	h.t.Helper()
	h.edit("grants.yaml", "      verbs: [test.mark", "      approve: [test.mark]\n"+more+"      verbs: [test.mark")
}

// edit changes one of the root-owned files and has it read again.
func (h *hostileHalf) edit(name, old, new string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		h.t.Fatalf("%s does not say %q", name, old)
	}
	if err := errors.Join(os.WriteFile(path, []byte(changed), 0o600), h.reload()); err != nil {
		h.t.Fatal(err)
	}
}

// asking has the recipient call test.mark, and returns the call once it waits.
func (h *hostileHalf) asking(m *meeting, session, name string) (call.ID, control.WaitingCall) {
	h.t.Helper()
	m.refresh()
	id, body, signature := m.request("test.mark", named(name))
	before := len(h.waitingIn(session))
	if err := h.TakeCall(m.id, body, signature); err != nil {
		h.t.Fatal(err)
	}
	until(h.t, 5*time.Second, "the call waits", func() bool { return len(h.waitingIn(session)) == before+1 })
	for _, w := range h.waitingIn(session) {
		if len(w.Params) == 1 && w.Params[0].Value == name {
			return id, w
		}
	}
	h.t.Fatal("another call waits")
	return id, control.WaitingCall{}
}

// joined is a session on test.mark that the recipient has joined.
func (h *hostileHalf) joined() (session string, m *meeting, p *seamPeer) {
	h.t.Helper()
	session, s := h.open("test.mark")
	m = h.meet(s)
	return session, m, m.attach()
}

func (h *hostileHalf) waitingIn(session string) []control.WaitingCall {
	h.t.Helper()
	list, err := h.ListShares(h.ctx, control.ListRequest{ID: session})
	if err != nil {
		h.t.Fatal(err)
	}
	return list[0].Waiting
}

func (h *hostileHalf) answer(name string, approve bool) error {
	return h.AnswerCall(h.ctx, control.AnswerRequest{Call: name, Approve: approve, Reason: "not today"})
}

func TestACallThatTheGrantAsksForRunsOnceItIsApprovedAndOnlyOnce(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	session, m, p := h.joined()

	id, w := h.asking(m, session, "first")
	if !strings.HasSuffix(w.Line, "/bin/mktemp "+h.dir+"/mark.first.XXXXXX") {
		t.Errorf("the issuer is shown %q", w.Line)
	}
	if ran := h.left("mark.*"); ran != 0 {
		t.Fatalf("%d calls ran unasked", ran)
	}
	if err := h.answer("c-zzzzz", true); term.CodeOf(err) != control.NotFound {
		t.Errorf("a call that is not there: %v", err)
	}
	if err := h.answer(w.Call, true); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited || h.left("mark.first.*") != 1 {
		t.Errorf("the approved call ends as %v", r.Cause)
	}
	for _, approve := range []bool{true, false} {
		if err := h.answer(w.Call, approve); term.CodeOf(err) != control.NotFound {
			t.Errorf("a second answer: %v", err)
		}
	}
	// The approval was for that call: the same one again is asked for again.
	again, w := h.asking(m, session, "first")
	if err := h.answer(w.Call, false); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, again); r.Cause != call.Denied || h.left("mark.*") != 1 {
		t.Errorf("the refused call ends as %v", r.Cause)
	}
	if approved, _ := h.logged("approve"); approved != 1 {
		t.Errorf("%d approvals in the log", approved)
	}
	if denied, _ := h.logged("deny"); denied != 1 {
		t.Errorf("%d denials in the log", denied)
	}
	// Who calls from inside is the issuer: nobody else is to be asked.
	r, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "own"}}}, io.Discard, io.Discard)
	if err != nil || r.Cause != "exited" {
		t.Errorf("a call from inside: %+v, %v", r, err)
	}
}

func TestTheIssuerMayAskToBeAsked(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	req := control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute, Approve: []string{"test.hold"}}
	if _, err := h.OpenShare(h.ctx, req); term.CodeOf(err) != control.Usage {
		t.Errorf("approval of a verb that is not shared: %v", err)
	}
	req.Approve, req.DryRun = []string{"test.mark"}, true
	dry, err := h.OpenShare(h.ctx, req)
	if err != nil || len(dry.Approve) != 1 {
		t.Errorf("the dry run says %+v, %v", dry.Approve, err)
	}
	req.DryRun = false
	opened, err := h.OpenShare(h.ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	found, ok := h.sessions.ByID(opened.ID)
	if !ok {
		t.Fatal("the session is not there")
	}
	h.mu.Lock()
	s := h.served[found.RID]
	h.mu.Unlock()
	m := h.meet(s)
	p := m.attach()
	id, w := h.asking(m, opened.ID, "asked")
	if err := h.answer(w.Call, true); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Errorf("it ends as %v", r.Cause)
	}
}

func TestNoAnswerIsNo(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.cfg.ApproveWithin = 50 * time.Millisecond
	h.asks("")
	_, m, p := h.joined()
	id, body, signature := m.request("test.mark", named("late"))
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Denied || h.left("mark.*") != 0 {
		t.Errorf("it ends as %v", r.Cause)
	}
	h.core.mu.Lock()
	defer h.core.mu.Unlock()
	if len(h.waiting) != 0 {
		t.Error("it still waits")
	}
}

// goAway says what comes of PINGs from now on; nil answers them.
func (p *seamPeer) goAway(away func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

func TestACallWhoseCallerIsAwayIsNotApproved(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	for name, probe := range map[string]func() error{
		"gone":   func() error { return errors.New("no answer") },
		"asleep": func() error { h.clock.step(session.FreshFor + time.Second); return nil },
	} {
		session, m, p := h.joined()
		id, w := h.asking(m, session, name)
		p.goAway(probe)
		if err := h.answer(w.Call, true); term.CodeOf(err) != control.Unreachable {
			t.Errorf("%s: %v", name, err)
		}
		if h.left("mark."+name+".*") != 0 {
			t.Errorf("%s: it ran", name)
		}
		p.goAway(nil) // back again: the call still waits, and may be approved
		if err := h.answer(w.Call, true); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Exited {
			t.Errorf("%s, and back: it ends as %v", name, r.Cause)
		}
	}
}

func TestAnApprovedCallIsDecidedAgainAndMustComeToTheSame(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(h *hostileHalf, id string){
		"the grant no longer allows it":      func(h *hostileHalf, _ string) { h.edit("grants.yaml", "{verb: test.mark}, ", "") },
		"the grant no longer lets it leave":  func(h *hostileHalf, _ string) { h.edit("grants.yaml", "to: [vendor-b]", "to: []") },
		"the verb has become another":        func(h *hostileHalf, _ string) { h.edit("verbs.yaml", "mark.{name}", "other.{name}") },
		"the verb no longer takes the value": func(h *hostileHalf, _ string) { h.edit("verbs.yaml", "required: true", "required: true, enum: [x]") },
		"the session's time has passed":      func(h *hostileHalf, _ string) { h.clock.step(31 * time.Minute) },
		"the session was revoked": func(h *hostileHalf, id string) {
			if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: id}); err != nil {
				h.t.Error(err)
			}
		},
		"lockdown": func(h *hostileHalf, _ string) {
			if _, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true}); err != nil {
				h.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostileHalf(t)
			h.asks("")
			session, m, p := h.joined()
			id, w := h.asking(m, session, "first")
			change(h, session)
			answered := h.answer(w.Call, true)
			if r := p.await(t, id); r.Cause == call.Exited {
				t.Errorf("it ran, after the answer %v", answered)
			}
			if h.left("mark.*")+h.left("other.*") != 0 {
				t.Error("it ran")
			}
		})
	}
}

func TestWhereTheGrantSaysTwoPeopleNobodyApprovesTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("      two_people: true\n")
	h.edit("grants.yaml", "users: [", "groups: [operators]\n    users: [")
	session, m, p := h.joined()
	id, w := h.asking(m, session, "first")
	as := func(uid uint32, name string, groups ...string) context.Context {
		return principal.NewContext(h.ctx, principal.Principal{UID: uid, Name: name, Groups: groups})
	}
	approve := control.AnswerRequest{Call: w.Call, Approve: true}
	if err := h.AnswerCall(h.ctx, approve); term.CodeOf(err) != control.Denied {
		t.Errorf("the issuer: %v", err)
	}
	stranger, colleague := as(4711, "stranger"), as(4712, "colleague", "operators")
	if err := h.AnswerCall(stranger, approve); term.CodeOf(err) != control.NotFound {
		t.Errorf("a stranger: %v", err)
	}
	if list, err := h.ListShares(stranger, control.ListRequest{}); err != nil || len(list) != 0 {
		t.Errorf("a stranger is shown %+v, %v", list, err)
	}
	if list, err := h.ListShares(colleague, control.ListRequest{}); err != nil || len(list) != 1 || len(list[0].Waiting) != 1 {
		t.Errorf("a colleague is shown %+v, %v", list, err)
	}
	if h.left("mark.*") != 0 {
		t.Error("it ran")
	}
	if err := h.AnswerCall(colleague, approve); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Errorf("it ends as %v", r.Cause)
	}
	// The issuer may always say no; and without two people, a colleague has no say.
	refused, w := h.asking(m, session, "second")
	if err := h.answer(w.Call, false); err != nil {
		t.Error(err)
	}
	if r := p.await(t, refused); r.Cause != call.Denied {
		t.Errorf("it ends as %v", r.Cause)
	}
	h.edit("grants.yaml", "      two_people: true\n", "")
	_, w = h.asking(m, session, "third")
	for _, approve := range []bool{true, false} {
		if err := h.AnswerCall(colleague, control.AnswerRequest{Call: w.Call, Approve: approve}); term.CodeOf(err) != control.NotFound {
			t.Errorf("a colleague, where one person is enough: %v", err)
		}
	}
}

// closedLog is a log that takes nothing more; the daemon has its own back when
// the test's calls are over.
func closedLog(t *testing.T, c *core) *audit.Log {
	t.Helper()
	closed, _, err := audit.Open(filepath.Join(t.TempDir(), "audit.log"), audit.Config{Boot: c.clock.Boot, Wall: c.clock.Wall, BootID: "closed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	open := c.log
	t.Cleanup(func() {
		c.calls.Wait()
		c.log = open
	})
	return closed
}

func TestAnApprovalThatCannotBeLoggedRunsNothing(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	session, m, p := h.joined()
	id, w := h.asking(m, session, "first")
	h.core.log = closedLog(t, h.core)
	if err := h.answer(w.Call, true); term.CodeOf(err) != control.Over {
		t.Errorf("%v", err)
	}
	if r := p.await(t, id); r.Cause != call.AuditFailure || h.left("mark.*") != 0 {
		t.Errorf("it ends as %v", r.Cause)
	}
}
