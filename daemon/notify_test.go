package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
)

// notifies has the command told of everything from now on, and returns what it
// was told so far.
func (h *hostileHalf) notifies(script string, change func(*Notify)) (told func() []notice, log *lockedLog) {
	h.t.Helper()
	path := filepath.Join(h.dir, "notify.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+strings.ReplaceAll(script, "DIR", h.dir)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	cfg := Notify{Argv: []string{path}}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.check(os.Geteuid()); err != nil {
		h.t.Fatal(err)
	}
	log = new(lockedLog)
	h.notify = newNotifier(cfg, h.core)
	h.notify.logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, stop := context.WithCancel(h.ctx)
	var serving sync.WaitGroup
	serving.Go(func() { h.notify.serve(ctx) })
	h.t.Cleanup(func() { stop(); serving.Wait() })
	return func() []notice {
		files, err := filepath.Glob(filepath.Join(h.dir, "told.*"))
		if err != nil {
			h.t.Fatal(err)
		}
		var all []notice
		for _, name := range files {
			text, err := os.ReadFile(name)
			var n notice
			if err == nil && json.Unmarshal(text, &n) == nil {
				all = append(all, n)
			}
		}
		slices.SortStableFunc(all, func(a, b notice) int { return strings.Compare(a.Event, b.Event) })
		return all
	}, log
}

type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestTheIssuerIsToldWhatHappensInTheirSession(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	told, log := h.notifies(`cat >$(mktemp DIR/told.XXXXXX); id -un >DIR/who`, nil)
	session, m, p := h.joined()
	id, w := h.asking(m, session, "first")
	if err := h.answer(w.Call, false); err != nil {
		t.Fatal(err)
	}
	p.await(t, id)
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: session, Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "everything is told", func() bool { return len(told()) == 4 })
	all := told()
	var events []string
	for _, n := range all {
		events = append(events, n.Event)
		if n.Session != session || n.Agent != "you" || n.Recipient != "vendor-b" || n.Time.IsZero() {
			t.Errorf("it is told %+v", n)
		}
	}
	if got := strings.Join(events, " "); got != "connected ended refused waiting" {
		t.Fatalf("it is told of: %s", got)
	}
	if n := all[3]; n.Call != w.Call || n.Line != w.Line || n.Params[0].Value != "first" {
		t.Errorf("of the waiting call it is told %+v", n)
	}
	if all[0].From != "192.0.2.1:1" || all[1].Reason != "enough" || !strings.Contains(all[2].Reason, "not today") {
		t.Errorf("it is told %+v", all)
	}
	if log.String() != "" {
		t.Errorf("the daemon logs %s", log)
	}
}

// A command that hangs delays no call: twenty are answered while it has not
// returned even once. What it does not keep up with is dropped, and said once.
func TestANotificationThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	log, hangs := new(lockedLog), make(chan struct{})
	h.notify = newNotifier(Notify{Argv: []string{"/bin/true"}}, h.core)
	h.notify.logger = slog.New(slog.NewTextHandler(log, nil))
	h.notify.run = func(context.Context, executor.Job) executor.Outcome { <-hangs; return executor.Outcome{} }
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(h.ctx)
	serving.Go(func() { h.notify.serve(ctx) })
	defer serving.Wait()
	defer stop()
	defer close(hangs)
	session, m, p := h.joined()
	for i := range 20 {
		m.refresh()
		id, body, signature := m.request("test.mark", named(fmt.Sprint("n", i)))
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		p.await(t, id)
		h.clock.step(time.Second)
	}
	for range 3 * maxNotices {
		h.notify.put(notice{Event: notifyConnected, Session: session, Issuer: "nobody-of-that-name"})
	}
	if n := strings.Count(log.String(), "were dropped"); n != 1 {
		t.Errorf("dropped notifications are logged %d times", n)
	}
}

func TestANotificationThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, log := h.notifies("exec sleep 86397", func(n *Notify) { n.Timeout = 300 * time.Millisecond })
	h.joined()
	until(t, 30*time.Second, "it is ended", func() bool { return strings.Contains(log.String(), "timed_out=true") })
}

// A recipient cannot have commands run by being refused.
func TestRefusalsAreToldOnceInAWhile(t *testing.T) {
	h := newHostileHalf(t)
	var ran []notice
	h.notify = newNotifier(Notify{Argv: []string{"/bin/true"}}, h.core)
	h.notify.run = func(context.Context, executor.Job) executor.Outcome { return executor.Outcome{} }
	session, m, p := h.joined()
	for range 15 {
		m.refresh()
		id, body, signature := m.request("test.nothing")
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		p.await(t, id)
		h.clock.step(time.Second)
	}
	for len(h.notify.queue) > 0 {
		if n := <-h.notify.queue; n.Event == notifyRefused {
			ran = append(ran, n)
		}
	}
	if len(ran) != 2 || ran[0].Count != 1 || ran[1].Count != 10 {
		t.Errorf("told: %+v", ran)
	}
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: session}); err != nil {
		t.Fatal(err)
	}
	if len(h.notify.refusals) != 0 {
		t.Error("a session that is over is still counted")
	}
}

func TestANotifyCommandThatOthersCanChangeIsRefused(t *testing.T) {
	dir, err := os.MkdirTemp("", "openscope-notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	good, open, link := filepath.Join(dir, "good"), filepath.Join(dir, "open"), filepath.Join(dir, "link")
	for path, mode := range map[string]os.FileMode{good: 0o755, open: 0o777} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		n    Notify
		want string
	}{
		"nothing":                  {Notify{}, ""},
		"good":                     {Notify{Argv: []string{good, "x"}, Events: notifyEvents, Timeout: time.Second}, ""},
		"writable by others":       {Notify{Argv: []string{open}}, "writable by others"},
		"by way of a link":         {Notify{Argv: []string{link}}, "writable by others"},
		"not there":                {Notify{Argv: []string{good + "x"}}, "no such file"},
		"a name":                   {Notify{Argv: []string{"good"}}, "absolute"},
		"an event there is not":    {Notify{Argv: []string{good}, Events: []string{"opened"}}, "opened"},
		"too long":                 {Notify{Argv: []string{good}, Timeout: time.Hour}, "timeout"},
		"a time without a command": {Notify{Timeout: time.Second}, "no command"},
	} {
		err := c.n.check(os.Geteuid())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
