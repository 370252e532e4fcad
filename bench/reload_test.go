package bench

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"openscope/wire/call"
)

// TestAReloadThatNarrowsTheGrantReachesAConnectedClientAtOnce takes a verb out of
// the grants under a connected client: its passport no longer shows it, and a
// call of it is refused.
func TestAReloadThatNarrowsTheGrantReachesAConnectedClientAtOnce(t *testing.T) {
	w := newWorld(t)
	_, h := w.open("5m", "test.echo:text=a|b", "test.mark")
	s := w.mustConnect(h)
	until(t, 5*time.Second, "the passport is there", func() bool { return s.Passport() != nil })
	if verbs := s.Passport().Grant.Verbs; len(verbs) != 2 {
		t.Fatalf("%+v", verbs)
	}
	grants, err := os.ReadFile(w.path("grants.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	narrower := strings.Replace(string(grants), "- verb: test.echo", "- {verb: test.echo, params: {text: [b, c]}}", 1)
	w.write("grants.yaml", strings.Replace(narrower, "- verb: test.mark", "", 1))
	if err := w.daemon.Reload(); err != nil {
		t.Fatal(err)
	}
	took := until(t, time.Second, "the smaller passport is there", func() bool { return len(s.Passport().Grant.Verbs) == 1 })
	t.Logf("the client has it after %v", took)
	if spec := s.Passport().Grant.Verbs[0].Spec(); spec != "test.echo:text=b" {
		t.Errorf("it shows %s", spec)
	}
	for _, c := range []struct {
		verb  string
		pairs []string
		want  call.Cause
	}{
		{"test.mark", nil, call.Denied}, {"test.echo", []string{"text", "a"}, call.Denied}, {"test.echo", []string{"text", "b"}, call.Exited},
	} {
		result, err := s.Call(t.Context(), c.verb, params(c.pairs...), io.Discard, io.Discard)
		if err != nil || result.Cause != c.want {
			t.Errorf("%s %v: %+v, %v", c.verb, c.pairs, result, err)
		}
	}
}
