package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program on a terminal of its own, and the person before it.
type terminal struct {
	t       *testing.T
	master  *os.File
	process *process
	seen    int // of the output, up to what was waited for
}

// newTerminal starts a program as a person does: the terminal is all it has.
func newTerminal(t *testing.T, env []string, program string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	p := &process{cmd: command(env, program, args...), done: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = p.out.Write(buf[:n])
			if err != nil {
				break // the last holder of the other side is gone
			}
		}
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return &terminal{t: t, master: master, process: p}
}

func (c *terminal) types(text string) {
	c.t.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.t.Fatal(err)
	}
}

// sees waits for the text, after what was waited for before.
func (c *terminal) sees(pattern string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	var all string
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		all = c.process.out.String()
		if at := re.FindStringIndex(all[c.seen:]); at != nil {
			c.seen += at[1]
			return
		}
	}
	c.t.Fatalf("%s does not come; after what was seen there is %q", pattern, all[c.seen:])
}

func TestAPersonAtATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo:text=hello|world", "test.follow", "test.mark")
	words, _, _ := strings.Cut(strings.TrimSpace(s.must("openscope", "fingerprint")), "\n")
	s.words = ""
	state := t.TempDir()
	c := newTerminal(t, append(s.env(), "XDG_STATE_HOME="+state), "openscope-reflect-client")

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
	<-c.process.done
	if code := c.process.cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("it ends with %d", code)
	}
	history, err := os.ReadFile(filepath.Join(state, "openscope", "history"))
	if err != nil || !strings.HasPrefix(string(history), "test.echo text=hello\n") || strings.Contains(string(history), words) {
		t.Errorf("the history is %q, %v", history, err)
	}
}
