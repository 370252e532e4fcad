package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/wire/call"
	"openscope/wire/term"
)

// refusedByLockdown fails unless nothing can be opened, extended or called.
func (h *hostileHalf) refusedByLockdown(c *core, id string) {
	h.t.Helper()
	_, open := c.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
	_, dry := c.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, DryRun: true})
	for name, err := range map[string]error{"opening": open, "a dry run": dry} {
		if term.CodeOf(err) != control.Denied || !strings.Contains(err.Error(), "lockdown") {
			h.t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.ExtendShare(h.ctx, control.ExtendRequest{ID: id, TTL: time.Minute}); err == nil {
		h.t.Error("a session is extended")
	}
	r, err := c.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "x"}}}, io.Discard, io.Discard)
	if err != nil || r.Cause != "denied" || !strings.Contains(r.Reason, "lockdown") {
		h.t.Errorf("a call from inside: %+v, %v", r, err)
	}
	e, err := c.Explain(h.ctx, control.ExplainRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "x"}}})
	if err != nil || e.Allowed || e.Rule != "lockdown" {
		h.t.Errorf("explained as %+v, %v", e, err)
	}
	if s, err := c.Status(h.ctx); err != nil || !strings.Contains(s.Lockdown, "the vendor is not who they said") {
		h.t.Errorf("the status is %+v, %v", s, err)
	}
}

// restarted is a daemon's core with the same files, once the first is gone.
func (h *hostileHalf) restarted() *core {
	h.t.Helper()
	again, err := newCore(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	again.network, again.log = h, h.log
	ctx, stop := context.WithCancel(h.ctx)
	h.t.Cleanup(stop)
	again.start(ctx)
	return again
}

func TestALockdownEndsEverythingAndOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.hold", "test.mark")
	m := h.meet(s)
	p := m.attach()
	held, body, signature := m.request("test.hold")
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	local := make(chan control.CallResult, 1)
	go func() {
		r, _ := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.spill"}, io.Discard, io.Discard)
		local <- r
	}()
	spilling := func() bool { return exec.Command("pgrep", "-f", "^/usr/bin/yes "+h.dir).Run() == nil }
	until(t, 10*time.Second, "both run", func() bool { return h.left("held.*") == 1 && spilling() })

	began := time.Now()
	result, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true, Reason: "the vendor is not who they said"})
	if err != nil || len(result.Ended) != 1 || result.Ended[0] != id {
		t.Fatalf("%+v, %v", result, err)
	}
	if r := p.await(t, held); r.Cause != call.Revoked {
		t.Errorf("the recipient's call ends as %v", r.Cause)
	}
	if r := <-local; r.Cause != "revoked" {
		t.Errorf("the call from inside ends as %+v", r)
	}
	until(t, time.Second, "no process is left", func() bool { return !spilling() })
	t.Logf("everything gone after %v", time.Since(began))

	ran := h.left("*")
	h.refusedByLockdown(h.core, id)
	if err := h.reload(); err != nil {
		t.Fatal(err)
	}
	h.refusedByLockdown(h.core, id)
	h.clock.step(10 * time.Second) // the calls from inside have a rate
	h.refusedByLockdown(h.restarted(), id)
	if h.left("*") != ran {
		t.Error("something ran in lockdown")
	}
	if entries, _ := h.logged("lockdown"); entries != 1 {
		t.Errorf("%d lockdowns in the log", entries)
	}
}

func TestOnlyRootLiftsALockdown(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	as := func(uid uint32, name string) context.Context {
		return principal.NewContext(h.ctx, principal.Principal{UID: uid, Name: name})
	}
	if _, err := h.Lockdown(as(1234, "stranger"), control.LockdownRequest{On: true}); term.CodeOf(err) != control.Denied {
		t.Errorf("somebody without an agent: %v", err)
	}
	if _, err := h.unlocked(); err != nil {
		t.Errorf("and it is on: %v", err)
	}
	if _, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true, Reason: "the vendor is not who they said"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // on again changes nothing for the worse
		if _, err := h.Lockdown(as(1234, "stranger"), control.LockdownRequest{}); term.CodeOf(err) != control.Denied {
			t.Errorf("lifted by a stranger: %v", err)
		}
		if _, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true, Reason: "the vendor is not who they said"}); err != nil {
			t.Fatal(err)
		}
	}
	h.refusedByLockdown(h.core, "s-none")
	if _, err := h.Lockdown(as(0, "root"), control.LockdownRequest{}); err != nil {
		t.Fatal(err)
	}
	h.open("test.mark")
	if _, err := h.restarted().unlocked(); err != nil {
		t.Errorf("a restart brings it back: %v", err)
	}
}

func TestALockdownThatCannotBeReadIsOne(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path string) error{
		"garbage":  func(path string) error { return os.WriteFile(path, []byte("off"), 0o600) },
		"nothing":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":   func(path string) error { return os.Symlink("/dev/null", path) },
		"open to all": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("{}"), 0o600), os.Chmod(path, 0o666))
		},
		"cut in half":  func(path string) error { return os.WriteFile(path, []byte(`{"since":"2026`), 0o600) },
		"another kind": func(path string) error { return os.WriteFile(path, []byte(`[1]`), 0o600) },
	} {
		h := newHostileHalf(t)
		if err := put(h.lockdownPath()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.restarted().unlocked(); err == nil {
			t.Errorf("%s: the daemon starts unlocked", name)
		}
	}
}

func TestALockdownThatCannotBeKeptHoldsAndSaysSo(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	if err := os.Mkdir(h.lockdownPath()+".new", 0o700); err != nil { // as a full disk would
		t.Fatal(err)
	}
	id, _ := h.open("test.mark")
	result, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true, Reason: "the vendor is not who they said"})
	if term.CodeOf(err) != control.Config || len(result.Ended) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	h.refusedByLockdown(h.core, id)
}
