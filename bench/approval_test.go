package bench

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// waiting is the name of the session's one call that waits, once there is one.
func (s *site) waiting(id string) string {
	s.t.Helper()
	var listed struct {
		Waiting []struct{ Call, Line string }
	}
	until(s.t, 10*time.Second, "a call waits", func() bool {
		if err := json.Unmarshal([]byte(s.must("openscope", "share", "show", id, "--json")), &listed); err != nil {
			s.t.Fatal(err)
		}
		return len(listed.Waiting) == 1
	})
	if !strings.Contains(listed.Waiting[0].Line, "/bin/echo hello") {
		s.t.Errorf("the issuer is shown %+v", listed.Waiting[0])
	}
	return listed.Waiting[0].Call
}

// The whole of it with the three programs: the recipient's call waits, the
// issuer sees what it comes to, and answers.
func TestTheIssuerAnswersForACallWithTheirOwnCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var opened struct{ ID, Handle string }
	text := s.must("openscope", "share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--ttl", "5m",
		"--verb", "test.echo", "--approve", "test.echo")
	if err := json.Unmarshal([]byte(text), &opened); err != nil {
		t.Fatal(err)
	}
	s.words = strings.TrimSpace(s.must("openscope", "fingerprint"))
	s.words, _, _ = strings.Cut(s.words, "\n")
	call := func() (p *process) {
		return startProcess(t, append(s.env(), "OPENSCOPE_PASSPORT="+opened.Handle, "OPENSCOPE_FINGERPRINT="+s.words), "openscope-reflect-client", "call", "test.echo", "text=hello")
	}
	ends := func(p *process, code int, says string) {
		t.Helper()
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			t.Fatalf("the client does not end: %s", p.out.String())
		}
		if got := p.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(p.out.String(), says) {
			t.Errorf("the client ends with %d, want %d: %s", got, code, p.out.String())
		}
	}

	approved := call()
	name := s.waiting(opened.ID)
	if list := s.must("openscope", "share", "list"); !strings.Contains(list, "openscope share approve "+name) {
		t.Errorf("the list does not say how to answer:\n%s", list)
	}
	s.must("openscope", "share", "approve", name)
	ends(approved, 0, "hello\n")

	refused := call()
	s.must("openscope", "share", "deny", s.waiting(opened.ID), "--reason", "not on a Friday")
	ends(refused, 3, "not on a Friday")

	// Whose caller is gone, nobody can approve any more.
	gone := call()
	name = s.waiting(opened.ID)
	if err := gone.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-gone.done
	if _, _, code := run(t, s.env(), "openscope", "share", "approve", name); code != 4 && code != 7 {
		t.Errorf("approving a call whose caller is gone: exit %d", code)
	}
	shown := s.must("openscope", "audit", "show", opened.ID, "--json")
	for kind, want := range map[string]int{"approve": 1, "call": 1, "result": 1} {
		if got := strings.Count(shown, `"kind":"`+kind+`"`); got != want {
			t.Errorf("%d entries of kind %s in the log, want %d:\n%s", got, kind, want, shown)
		}
	}
}
