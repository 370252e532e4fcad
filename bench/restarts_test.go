package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// slow lets a running site's daemon have the verbs of the tests of resuming.
func (s *site) slow() {
	s.t.Helper()
	s.slowVerbs()
	if err := s.daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	until(s.t, 10*time.Second, "the daemon has read its verbs", func() bool {
		return strings.Contains(s.must("openscope", "verbs", "--agent", "you"), "test.steps")
	})
}

// restartRelay kills the relay and starts it again; it returns when that listens.
func (s *site) restartRelay() {
	s.t.Helper()
	if err := s.relay.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.relay.done
	s.startRelay()
	until(s.t, 10*time.Second, "the relay listens", func() bool { return strings.Contains(s.relay.out.String(), "relay listening") })
}

// idler is a client that is there and does nothing, in this process.
func (s *site) idler() *client.Session {
	s.t.Helper()
	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	session, err := client.Connect(ctx, client.Config{
		Handle: h, Identity: s.identity(), StateDir: s.path("client"), Rand: rand.Reader, Redial: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}

// connected reports whether a client of the session stands, as its issuer sees it.
func (s *site) connected(id string) bool {
	s.t.Helper()
	var shown struct{ State string }
	if err := json.Unmarshal([]byte(s.must("openscope", "share", "show", id, "--json")), &shown); err != nil {
		s.t.Fatal(err)
	}
	return shown.State == "connected"
}

// worker is a session in which one call is always running, by the program that
// people run.
type worker struct {
	site *site // with this session's handle
	name string
	ends chan struct{}

	mu    sync.Mutex // guards what is below
	calls int
	seen  func() int
	call  *process
	lost  []string
}

// work calls until it is told to end.
func (w *worker) work(lines int) {
	for {
		select {
		case <-w.ends:
			return
		default:
		}
		w.mu.Lock()
		name := fmt.Sprintf("%s-%d", w.name, w.calls)
		w.calls++
		w.call = startProcess(w.site.t, w.site.env(), "openscope-reflect-client", "call", "test.steps", "name="+name, fmt.Sprint("lines=", lines), "pause=0.25")
		p := w.call
		w.seen = func() int { return strings.Count(p.out.String(), " of "+name+"\n") }
		w.mu.Unlock()
		<-p.done
		want, _ := steps(name, lines)
		var got strings.Builder
		for line := range strings.Lines(p.out.String()) {
			if strings.HasPrefix(line, "line ") {
				got.WriteString(line)
			}
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 0 || got.String() != want {
			w.mu.Lock()
			w.lost = append(w.lost, fmt.Sprintf("%s: exit %d, %d bytes of %d: %s", name, code, got.Len(), len(want), p.out.String()))
			w.mu.Unlock()
		}
	}
}

// now is the running call, and what it has shown so far.
func (w *worker) now() (p *process, seen func() int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.call, w.seen
}

// underWay is a call that runs while the relay is away.
type underWay struct {
	p      *process
	seen   func() int
	before int // lines, when it went
}

// resumed waits until the call that ran while the relay was away shows something
// again, or has ended, and returns how long after the relay's return that was.
func (u underWay) resumed(back time.Time) time.Duration {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(back) < 30*time.Second {
		select {
		case <-u.p.done:
			return 0 // its whole output is looked at elsewhere
		case <-tick.C:
		}
		if u.seen() > u.before {
			return time.Since(back)
		}
	}
	return time.Since(back)
}

// The relay is killed and started again, over and over, under sessions that run a
// call each, and under some that do nothing: those find out at their next use, or
// by themselves.
func TestSessionsResumeWhenTheirRelayIsBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.slow()
	var workers []*worker
	var working sync.WaitGroup
	for i := range restartSessions {
		s.open("30m", "test.steps")
		here := *s
		w := &worker{site: &here, name: fmt.Sprint("w", i), ends: make(chan struct{})}
		workers = append(workers, w)
		working.Go(func() { w.work(restartLines) })
		until(t, 20*time.Second, "its call runs", func() bool { _, seen := w.now(); return seen != nil && seen() > 0 })
	}
	s.open("30m", "test.steps")
	used, usedID := s.idler(), s.id
	s.open("30m", "test.steps")
	s.idler()
	idleID := s.id

	var running, next []time.Duration
	began := time.Now()
	for n := 0; time.Since(began) < restartLength(); n++ {
		var resuming sync.WaitGroup
		took := make([]time.Duration, len(workers))
		var calls []underWay
		if err := s.relay.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // nothing comes from here on
			t.Fatal(err)
		}
		for _, w := range workers {
			p, seen := w.now()
			calls = append(calls, underWay{p, seen, seen()})
		}
		s.restartRelay()
		back := time.Now()
		for i, u := range calls {
			resuming.Go(func() { took[i] = u.resumed(back) })
		}
		if n%2 == 0 { // the idle one is used at once
			r, err := used.Call(t.Context(), "test.steps", params("name", fmt.Sprint("u-", n), "lines", "1", "pause", "0"), io.Discard, io.Discard)
			next = append(next, time.Since(back))
			if err != nil || r.Cause != call.Exited || !r.Complete {
				t.Errorf("the idle one's next use: %v, %v: %s", r.Cause, err, r.Reason)
			}
		}
		resuming.Wait()
		running = append(running, took...)
		if rest := restartEvery - time.Since(back); rest > 0 {
			time.Sleep(rest)
		}
	}
	idle := until(t, 60*time.Second, "the idle ones are back", func() bool { return s.connected(idleID) && s.connected(usedID) })
	for _, w := range workers {
		close(w.ends)
	}
	working.Wait()
	calls := 0
	for _, w := range workers {
		calls += w.calls
		for _, lost := range w.lost {
			t.Errorf("lost: %s", lost)
		}
	}
	ran := ranOnce(t, s.read("ran"))
	slices.Sort(running)
	slices.Sort(next)
	t.Logf("%d restarts, %d sessions, %d calls, %d runs: resumed half %v, 99 %% %v, at most %v after the relay's return; an idle one's next use at most %v; idle ones were back %v after the last second of it",
		len(running)/len(workers), len(workers), calls, ran, running[len(running)/2], running[len(running)*99/100], running[len(running)-1], next[len(next)-1], idle)
	if worst := running[len(running)-1]; worst > 5*time.Second {
		t.Errorf("the slowest resumed %v after the relay's return", worst)
	}
	if worst := next[len(next)-1]; worst > 10*time.Second { // a connection is doubted after five
		t.Errorf("an idle one's next use took %v", worst)
	}
	s.must("openscope", "audit", "verify")
	_ = s.relay.cmd.Process.Kill() // it would drain for whom it was taken from
}
