package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attempt runs a program whose daemon may be killed under it: how it ends is
// not asked.
func attempt(ctx context.Context, env []string, program string, args ...string) []byte {
	cmd := command(env, program, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	_ = cmd.Wait()
	return out.Bytes()
}

// session is a whole session, with what two people do in it.
func (s *site) session(ctx context.Context, words string) {
	var opened struct{ ID, Handle string }
	text := attempt(ctx, s.env(), "openscope", "share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--ttl", "5m",
		"--verb", "test.follow", "--verb", "test.mark")
	if json.Unmarshal(text, &opened) != nil {
		return
	}
	env := append(s.env(), "OPENSCOPE_PASSPORT="+opened.Handle, "OPENSCOPE_FINGERPRINT="+words)
	following := make(chan struct{})
	go func() {
		defer close(following)
		attempt(ctx, env, "openscope-reflect-client", "call", "test.follow")
	}()
	for range 3 {
		attempt(ctx, env, "openscope-reflect-client", "call", "test.mark")
	}
	attempt(ctx, s.env(), "openscope", "share", "extend", opened.ID, "--verb", "test.echo")
	attempt(ctx, s.env(), "openscope", "share", "revoke", opened.ID)
	<-following
}

// entries counts the log's entries of a kind, and of a verb where it is given.
func (s *site) entries(kind, verb string) int {
	s.t.Helper()
	text, err := os.ReadFile(s.path("etc/state/audit.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte(`"kind":"`+kind+`"`)) && bytes.Contains(line, []byte(verb)) {
			n++
		}
	}
	return n
}

// T6: the daemon is killed at random points of a session. No process is left 2 s
// later, no session is there after a new start, which is clean, the log verifies,
// with at most one torn line, and nothing has run that is not in it.
func TestADaemonKilledAtAnyPointLeavesNothingAndStartsClean(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	words, _, _ := strings.Cut(strings.TrimSpace(s.must("openscope", "fingerprint")), "\n")
	random := rand.New(rand.NewPCG(7, 8))
	var slowest time.Duration
	running, torn := 0, 0
	for i := range daemonKills {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.session(ctx, words)
		}()
		// The point in time is random, and so is where in the session that is.
		time.Sleep(time.Duration(random.Int64N(int64(1200 * time.Millisecond))))
		if s.following() {
			running++
		}
		if err := s.daemon.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-s.daemon.done
		slowest = max(slowest, until(t, 2*time.Second, "no process of the session is left", func() bool { return !s.following() }))
		cancel()
		<-done
		s.startDaemon()
		if list := strings.TrimSpace(s.must("openscope", "share", "list", "--all", "--json")); list != "" && list != "[]" {
			t.Errorf("a session survived kill %d: %s", i, list)
		}
		s.must("openscope", "audit", "verify")
		now := s.entries("torn", "")
		if now > torn+1 {
			t.Errorf("kill %d left %d torn lines", i, now-torn)
		}
		torn = now
	}
	marks, err := filepath.Glob(s.path("mark.*"))
	if err != nil {
		t.Fatal(err)
	}
	intents := s.entries("call", `"verb":"test.mark"`)
	if len(marks) > intents {
		t.Errorf("%d calls ran, and the log has %d", len(marks), intents)
	}
	if starts := s.entries("start", ""); starts != daemonKills+1 {
		t.Errorf("%d starts in the log", starts)
	}
	t.Logf("%d kills, %d with work running, gone %v later at most; %d torn lines; %d calls ran of %d in the log",
		daemonKills, running, slowest, torn, len(marks), intents)
	// The relay has not heard yet that anybody is gone, and would drain for them.
	if err := s.relay.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-s.relay.done
	if _, err := exec.LookPath("pgrep"); err != nil {
		t.Error("without pgrep nothing was looked for")
	}
}

// T7: the client is killed at random points of a call, and its relay with every
// fourth. Each call has run once at most, and the next one works.
func TestAClientKilledAtAnyPointRunsNothingTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.slow()
	s.open("30m", "test.steps")
	random := rand.New(rand.NewPCG(9, 10))
	started := 0
	for i := range clientKills {
		p := startProcess(t, s.env(), "openscope-reflect-client", "call", "test.steps", fmt.Sprint("name=k", i), "lines=10", "pause=0.05")
		time.Sleep(time.Duration(random.Int64N(int64(800 * time.Millisecond)))) // the point is random
		if i%4 == 3 {
			s.restartRelay()
		}
		if strings.Contains(p.out.String(), "line 1 of") {
			started++
		}
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	}
	out := s.must("openscope-reflect-client", "call", "test.steps", "name=last", "lines=1", "pause=0")
	if !strings.Contains(out, "line 1 of last") {
		t.Errorf("the next call: %s", out)
	}
	ran := ranOnce(t, s.read("ran"))
	if intents := s.entries("call", `"verb":"test.steps"`); ran > intents || ran < started+1 {
		t.Errorf("%d calls ran, %d had shown something, and the log has %d", ran, started, intents)
	}
	t.Logf("%d kills, %d in the middle of output; %d ran", clientKills, started, ran)
	s.must("openscope", "audit", "verify")
	_ = s.relay.cmd.Process.Kill() // it would drain for those who were killed
}
