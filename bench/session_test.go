package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
)

// callResult is what a call in the background came to.
type callResult struct {
	client.Result
	err  error
	last time.Time // of the last byte of output
}

// clocked remembers when it was last written to.
type clocked struct {
	bytes.Buffer
	first chan struct{}
	last  time.Time
}

func newClocked() *clocked { return &clocked{first: make(chan struct{})} }

func (c *clocked) Write(p []byte) (int, error) {
	if c.last.IsZero() {
		close(c.first)
	}
	c.last = time.Now()
	return c.Buffer.Write(p)
}

// follow starts the endless verb and waits for its first byte.
func (w *world) follow(s *client.Session) (done chan callResult) {
	w.t.Helper()
	out, done := newClocked(), make(chan callResult, 1)
	go func() {
		var stderr bytes.Buffer
		r, err := s.Call(context.Background(), "test.follow", nil, out, &stderr)
		done <- callResult{Result: r, err: err, last: out.last}
	}()
	select {
	case <-out.first:
	case r := <-done:
		w.t.Fatalf("following ended at once: %+v %v", r.Result, r.err)
	case <-time.After(10 * time.Second):
		w.t.Fatal("following brings no first byte")
	}
	return done
}

// following reports whether the endless command still runs.
func (w *world) following() bool {
	return exec.Command("pgrep", "-f", "tail -n 1 -f "+w.dir).Run() == nil
}

func TestARecipientCallsWhatWasSharedAndNothingElse(t *testing.T) {
	w := newWorld(t)
	_, h := w.open("5m", "test.echo:text=hello|world", "test.mark")
	s := w.mustConnect(h)

	if got := len(s.Passport().Grant.Verbs); got != 2 {
		t.Fatalf("the passport shows %d verbs, want 2", got)
	}
	for _, c := range []struct {
		name   string
		verb   string
		params []call.Param
		cause  call.Cause
		output string
	}{
		{"a shared value", "test.echo", params("text", "hello"), call.Exited, "hello\n"},
		{"another shared value", "test.echo", params("text", "world"), call.Exited, "world\n"},
		{"a value outside the passport", "test.echo", params("text", "other"), call.Denied, ""},
		{"a verb of the grant that was not shared", "test.secret", nil, call.Denied, ""},
		{"a verb that does not exist", "test.nothing", nil, call.Denied, ""},
		{"another case of a verb", "TEST.echo", params("text", "hello"), call.Denied, ""},
		{"an unknown parameter", "test.echo", params("text", "hello", "more", "x"), call.Denied, ""},
		{"a parameter given twice", "test.echo", params("text", "hello", "text", "hello"), call.Denied, ""},
		{"a missing parameter", "test.echo", nil, call.Denied, ""},
		{"a shell metacharacter", "test.echo", params("text", "hello; reboot"), call.Denied, ""},
		{"a newline", "test.echo", params("text", "hello\nworld"), call.Denied, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			r, err := s.Call(t.Context(), c.verb, c.params, &stdout, &stderr)
			if err != nil {
				t.Fatal(err)
			}
			if r.Cause != c.cause || stdout.String() != c.output || !r.Complete {
				t.Errorf("cause %v, output %q, complete %v, reason %q", r.Cause, stdout.String(), r.Complete, r.Reason)
			}
		})
	}
	log := w.issuer(0, "audit", "tail", "--json")
	if got := strings.Count(log, `"kind":"deny"`); got != 9 {
		t.Errorf("the log has %d denials, want 9\n%s", got, log)
	}
	w.issuer(0, "audit", "verify", w.path("audit.log"))
}

func TestALongOutputArrivesWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, h := w.open("5m", "test.count")
	s := w.mustConnect(h)
	var stdout, stderr bytes.Buffer
	r, err := s.Call(t.Context(), "test.count", nil, &stdout, &stderr)
	if err != nil || r.Cause != call.Exited || !r.Complete {
		t.Fatalf("%v, complete %v: %v", r.Cause, r.Complete, err)
	}
	var want bytes.Buffer
	for n := range 300_000 {
		fmt.Fprintln(&want, n+1)
	}
	if !bytes.Equal(stdout.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes have come, and not the %d that were written", stdout.Len(), want.Len())
	}
}

func TestASessionOpenedForFiveSecondsIsGoneWithinOneMore(t *testing.T) {
	w := newWorld(t)
	opened := time.Now()
	_, h := w.open("5s", "test.follow")
	s := w.mustConnect(h)
	done := w.follow(s)
	deadline := opened.Add(5 * time.Second)

	r := <-done
	if r.Cause != call.Expired {
		t.Errorf("the call ended as %v (%v), want expired", r.Cause, r.err)
	}
	if late := r.last.Sub(deadline); late > time.Second {
		t.Errorf("the last byte came %v after the deadline", late)
	}
	until(t, time.Until(deadline.Add(1300*time.Millisecond)), "the process is gone", func() bool { return !w.following() })
	late := time.Since(deadline)
	t.Logf("last process seen gone %v after the deadline", late)
	if late > 1200*time.Millisecond { // opening takes some of it
		t.Errorf("the last process was gone %v after the deadline", late)
	}
	<-s.Done()
	if _, err := w.connect(h, nil); err == nil {
		t.Error("a late client got in")
	} else if over, ok := errors.AsType[*client.OverError](err); !ok || over.Cause != call.Expired {
		t.Errorf("a late client is told %v, want expired", err)
	}
}

func TestRevokeKillsRunningWorkEveryTime(t *testing.T) {
	w := newWorld(t)
	var slowest time.Duration
	for range 20 {
		id, h := w.open("5m", "test.follow")
		s := w.mustConnect(h)
		done := w.follow(s)
		began := time.Now()
		w.issuer(0, "share", "revoke", id, "--reason", "enough")
		r := <-done
		if r.Cause != call.Revoked {
			t.Fatalf("the call ended as %v (%v), want revoked", r.Cause, r.err)
		}
		until(t, time.Second, "the process is gone", func() bool { return !w.following() })
		slowest = max(slowest, time.Since(began))
		s.Close()
	}
	t.Logf("20 of 20 revoked; slowest, from starting the command to process and answer gone: %v", slowest)
	if slowest > time.Second {
		t.Errorf("slowest revoke took %v, want under 1s", slowest)
	}
}

func TestAnExtendedSessionLetsANewClientInWithTheOldHandle(t *testing.T) {
	w := newWorld(t)
	id, h := w.open("2s", "test.echo:text=hello")
	s := w.mustConnect(h)
	w.issuer(0, "share", "extend", id, "--ttl", "10m", "--verb", "test.mark")
	until(t, 5*time.Second, "the connected client sees the new verb", func() bool {
		return len(s.Passport().Grant.Verbs) == 2
	})
	s.Close()
	w.clock.step(3*time.Second, 3*time.Second)
	again := w.mustConnect(h)
	var stdout, stderr bytes.Buffer
	r, err := again.Call(t.Context(), "test.mark", nil, &stdout, &stderr)
	if err != nil || r.Cause != call.Exited || w.marks() != 1 {
		t.Fatalf("calling after the first deadline: %v %v (%s)", r.Cause, err, r.Reason)
	}
}

func TestASessionNeverPassesThirtyMinutesAfterOpening(t *testing.T) {
	for _, c := range []struct {
		name       string
		wall, boot time.Duration // what passes on each clock, at every step
	}{
		{"both clocks", time.Minute, time.Minute},
		{"the wall clock stands still", 0, time.Minute},
		{"the wall clock runs backwards", -time.Hour, time.Minute},
		{"the boot clock stands still", time.Minute, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			id, h := w.open("10m", "test.mark")
			for minute := range 29 {
				w.clock.step(c.wall, c.boot)
				left := time.Duration(29-minute)*time.Minute - 30*time.Second // what the commands may take by the clocks that run
				w.issuer(0, "share", "extend", id, "--ttl", min(left, 10*time.Minute).String())
				w.issuer(8, "share", "extend", id, "--ttl", "30m")
			}
			s := w.mustConnect(h)
			w.clock.step(c.wall+time.Second, c.boot+time.Second)
			select {
			case <-s.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("the session outlives the cap")
			}
			if w.marks() != 0 {
				t.Error("something ran")
			}
		})
	}
}

func TestBearerCallsWaitForTheWords(t *testing.T) {
	w := newWorld(t)
	id, h := w.opened("share", "open", "--json", "--agent", "you", "--bearer", "--verb", "test.mark", "--ttl", "5m")
	s := w.mustConnect(h)
	done := make(chan callResult, 1)
	go func() {
		var stdout, stderr bytes.Buffer
		r, err := s.Call(context.Background(), "test.mark", nil, &stdout, &stderr)
		done <- callResult{Result: r, err: err}
	}()
	w.issuer(3, "share", "confirm", id, "abandon abandon abandon abandon")
	select {
	case r := <-done:
		t.Fatalf("the call did not wait: %+v", r)
	case <-time.After(300 * time.Millisecond):
	}
	if w.marks() != 0 {
		t.Fatal("the call ran before the words were confirmed")
	}
	w.issuer(0, "share", "confirm", id, strings.Join(s.Words(), " "))
	if r := <-done; r.Cause != call.Exited || w.marks() != 1 {
		t.Errorf("after the confirmation: %v (%v), %d marks", r.Cause, r.err, w.marks())
	}

	thief := *w
	thief.dir = protectedDir(t)
	if _, err := thief.connect(h, nil); err == nil {
		t.Error("another key got into a claimed session")
	}
	if list := w.issuer(0, "share", "list", "--json"); !strings.Contains(list, `"refused":1`) {
		t.Errorf("the refused claim is not in the list: %s", list)
	}
}

func TestTimesThatAreRefusedOpenNothing(t *testing.T) {
	w := newWorld(t)
	for _, ttl := range []string{"31m", "0", "0s", "-5m", "soon", "30m1s", "1h", ""} {
		w.issuer(2, "share", "open", "--agent", "you", "--to", "vendor-b", "--verb", "test.mark", fmt.Sprintf("--ttl=%s", ttl))
	}
	if list := strings.TrimSpace(w.issuer(0, "share", "list", "--all", "--json")); list != "" && list != "[]" {
		t.Errorf("a session was opened: %s", list)
	}
}
