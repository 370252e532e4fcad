package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"openscope/client"
)

// called makes a call in the background that is expected to wait.
func called(s *client.Session, text string) (done chan callResult) {
	done = make(chan callResult, 1)
	go func() {
		var out, errs bytes.Buffer
		r, err := s.Call(context.Background(), "test.echo", params("text", text), &out, &errs)
		done <- callResult{Result: r, err: err}
	}()
	return done
}

func TestTheIssuerWatchesAndAnswersWithOneKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, h := w.opened("share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--verb", "test.echo", "--approve", "test.echo", "--verb", "test.follow")
	x := onTerminal(t, command(w.env(), "openscope", "share", "watch", id), 80, 24)
	x.shows(id)
	s := w.mustConnect(h)
	x.shows("connected from 127.0.0.1")

	// A waiting call is on the screen within 300 ms of being made: the median of
	// five, since the machine has other work too.
	var took []time.Duration
	for i := range 5 {
		began, text := time.Now(), fmt.Sprint("number-", i)
		done := called(s, text)
		x.shows("WAITING  #" + fmt.Sprint(i+1))
		took = append(took, time.Since(began))
		x.shows("echo " + text)
		for range 50 { // a key that comes too soon is said to
			x.types(map[bool]string{true: "a", false: "d"}[i < 4])
			select {
			case r := <-done:
				if want := map[bool]string{true: "exited", false: "denied"}[i < 4]; r.err != nil || r.Cause.String() != want {
					t.Fatalf("the answered call ends as %+v, %v; want %s", r.Result, r.err, want)
				}
				done = nil
			case <-time.After(200 * time.Millisecond):
				continue
			}
			break
		}
		if done != nil {
			t.Fatalf("no key answers for the call:\n%s", x.screen())
		}
		x.shows("#" + fmt.Sprint(i+1) + map[bool]string{true: " exited", false: " refused"}[i < 4])
	}
	slices.Sort(took)
	t.Logf("a waiting call was on the screen after %v (median of %v)", took[2], took)
	if took[2] > 300*time.Millisecond {
		t.Errorf("a waiting call is on the screen after %v", took[2])
	}

	// Output as it flows; other sizes; new rules.
	following := w.follow(s)
	x.shows("| one line")
	x.resize(120, 40)
	until(t, 5*time.Second, "the screen has 40 lines", func() bool { return strings.Count(x.screen(), "\r\n") == 39 })
	if err := w.daemon.Reload(); err != nil {
		t.Fatal(err)
	}
	x.shows("the daemon has read its grants")

	// Revoked by one key and its confirmation; what is left says how it was.
	x.types("r")
	x.shows("running work is killed")
	x.types("y")
	x.shows("ENDED")
	if r := <-following; r.Cause.String() != "revoked" {
		t.Errorf("the running call ends as %+v", r.Result)
	}
	x.shows("4 exited, 1 revoked, 1 refused") // the call has its last word after the session has
	x.types("q")
	select {
	case <-x.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the screen stays")
	}
	after := x.out.String()[strings.LastIndex(x.out.String(), "\x1b[?1049l"):]
	if code := x.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(after, "4 exited, 1 revoked, 1 refused") {
		t.Errorf("it leaves with %d and %q", code, after)
	}
}

// Where there is no terminal, a line for everything; and it outlives the daemon's
// reload, and the daemon.
func TestAWatchWithoutATerminalIsLines(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo")
	watch := startProcess(t, s.env(), "openscope", "share", "watch", s.id)
	events := startProcess(t, s.env(), "openscope", "share", "watch", s.id, "--json")
	until(t, 10*time.Second, "both watch", func() bool {
		return strings.Contains(watch.out.String(), "watching "+s.id) && strings.Contains(events.out.String(), `"kind":"session"`)
	})
	if err := s.daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the reload is told", func() bool {
		return strings.Contains(watch.out.String(), "has read its grants, verbs and recipients again")
	})
	s.must("openscope-reflect-client", "call", "test.echo", "text=hello")
	s.must("openscope", "share", "revoke", s.id, "--reason", "enough")
	for _, p := range []*process{watch, events} {
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			t.Fatalf("the watch outlives its session:\n%s", p.out.String())
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the watch ends with %d", code)
		}
	}
	for _, line := range []string{"connected from", "#1 runs: test.echo text=hello", "#1 | hello", "#1 exited with status 0, 6 B", "ended: revoked: enough", "calls: 1 exited"} {
		if !strings.Contains(watch.out.String(), line) {
			t.Errorf("no line says %q:\n%s", line, watch.out.String())
		}
	}
	for line := range strings.Lines(events.out.String()) {
		var e struct{ Kind, Stream, Text, Data string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Data != "" || (e.Kind == "output") != (e.Text == "hello\n") {
			t.Errorf("%v: %s", err, line)
		}
	}
	s.refused(9, "is over", "openscope", "share", "watch", s.id)

	// A daemon that is started anew has no sessions: the watch says so.
	s.open("5m", "test.echo")
	watch = startProcess(t, s.env(), "openscope", "share", "watch", s.id)
	until(t, 10*time.Second, "it watches", func() bool { return strings.Contains(watch.out.String(), "watching") })
	if err := s.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.daemon.done
	until(t, 10*time.Second, "it says that the daemon is gone", func() bool { return strings.Contains(watch.out.String(), "trying again") })
	s.startDaemon()
	select {
	case <-watch.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the watch goes on:\n%s", watch.out.String())
	}
	if code := watch.cmd.ProcessState.ExitCode(); code != 9 || !strings.Contains(watch.out.String(), "was started anew") {
		t.Errorf("it ends with %d:\n%s", code, watch.out.String())
	}
}
