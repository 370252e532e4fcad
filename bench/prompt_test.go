package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAnInterruptIsAnAnswerToTheQuestionForTheWords(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo:text=hello")
	words := strings.SplitN(s.must("openscope", "fingerprint"), "\n", 2)[0]
	s.words = ""
	for _, args := range [][]string{nil, {"call", "test.echo"}} {
		for _, before := range []string{"", words + "\n"} { // to either question
			c := onTerminal(t, command(append(s.env(), "XDG_STATE_HOME="+t.TempDir()), "openscope-reflect-client", args...), 80, 24)
			c.sees(`\(8 words\): `)
			if c.types(before); before != "" {
				c.sees(`remember this daemon by: `)
			}
			c.types("\x03")
			c.sees(`interrupted`)
			<-c.done
			if code := c.cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("%v: it ends with %d", args, code)
			}
		}
	}
	if text, err := os.ReadFile(s.path("known_daemons")); err == nil {
		t.Errorf("remembered is %q", text)
	}
}

func TestAPersonAtATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo:text=hello|world", "test.follow", "test.mark")
	words, _, _ := strings.Cut(strings.TrimSpace(s.must("openscope", "fingerprint")), "\n")
	s.words = ""
	state := t.TempDir()
	c := onTerminal(t, command(append(s.env(), "XDG_STATE_HOME="+state), "openscope-reflect-client"), 200, 50)

	c.sees(`as the issuer told you \(8 words\): `)
	c.types(words + "\n")
	c.sees(`remember this daemon by: `)
	c.types("acme\n")
	c.sees(`VERB +CLASS +LIMITS +PARAMETERS +WHAT IT DOES`)
	c.sees(`acme 4m> `)

	c.types("test.ec\tte\th\t\r") // a verb, a parameter, a value
	c.sees(`test\.echo text=hello`)
	c.sees(`\nhello\r\n`)
	c.sees(`acme 4m> `)
	c.types("test.\t")
	c.sees(`test\.echo +test\.follow +test\.mark`)
	c.types("nonsense\x03") // the line is emptied
	c.types("\x1b[A\r")     // and the one before it is there
	c.sees(`\nhello\r\n`)

	c.types("test.follow\r")
	c.sees(`canary-output-4711`)
	if !s.following() {
		t.Error("the call does not run")
	}
	c.types("\x03")
	c.sees(`test\.follow was cancelled`)
	until(t, 2*time.Second, "the remote work is gone", func() bool { return !s.following() })
	c.sees(`acme 4m> `)

	c.types("test.follow &\r")
	c.sees(`\[1\] a line that only the recipient may read`)
	c.types("jobs\r")
	c.sees(`\[1\] \d+ bytes in \d+s  test\.follow`)
	c.types("test.echo text=world\r")
	c.sees(`\nworld\r\n`)
	c.types("quit\r")
	c.sees(`1 of your calls run; once more`)
	c.types("cancel 1\r")
	c.sees(`\[1\] test\.follow: test\.follow was cancelled`)

	s.must("openscope", "share", "extend", s.id, "--ttl", "100s")
	c.sees(`the issuer has changed the session`)
	c.sees(`acme \d\ds> `) // it counts seconds now, without a key being pressed
	c.types("test.ec")
	s.must("openscope", "share", "revoke", s.id, "--reason", "that will do")
	c.sees(`the session is over: revoked: that will do`)
	<-c.done
	if code := c.cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("it ends with %d", code)
	}
	history, err := os.ReadFile(filepath.Join(state, "openscope", "history"))
	if err != nil || !strings.HasPrefix(string(history), "test.echo text=hello\n") || strings.Contains(string(history), words) {
		t.Errorf("the history is %q, %v", history, err)
	}
}
