package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program on a terminal of its own, and all it has written to it.
type terminal struct {
	t    *testing.T
	us   *os.File // the far end
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	seen int // of what is written, up to what was waited for
}

// onTerminal starts a command on a terminal of that size: it is all the command has.
func onTerminal(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *terminal {
	t.Helper()
	us, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	unlocked := unix.IoctlSetPointerInt(int(us.Fd()), unix.TIOCSPTLCK, 0)
	number, err := unix.IoctlGetInt(int(us.Fd()), unix.TIOCGPTN)
	if err := errors.Join(unlocked, err); err != nil {
		t.Fatal(err)
	}
	them, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	defer them.Close()
	x := &terminal{t: t, us: us, cmd: cmd, done: make(chan struct{})}
	x.cmd.Env = append(x.cmd.Env, "TERM=xterm")
	x.resize(columns, rows)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = them, them, them
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(&x.out, us) // ends with the last who has the terminal open
		_ = x.cmd.Wait()
		close(x.done)
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		<-x.done
		_ = us.Close()
	})
	return x
}

func (x *terminal) resize(columns, rows uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.us.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) types(text string) {
	x.t.Helper()
	if _, err := x.us.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// screen is the last whole frame, without what only moves or colours.
func (x *terminal) screen() string {
	frames := strings.Split(x.out.String(), "\x1b[H")
	last := frames[len(frames)-1]
	if len(frames) > 1 && !strings.HasSuffix(last, "\x1b[0m") {
		last = frames[len(frames)-2] // it is still being drawn
	}
	return regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]`).ReplaceAllString(last, "")
}

func (x *terminal) shows(what string) time.Duration {
	x.t.Helper()
	defer func() {
		if x.t.Failed() {
			x.t.Logf("the screen is:\n%s", x.screen())
		}
	}()
	return until(x.t, 10*time.Second, "the screen shows "+what, func() bool { return strings.Contains(x.screen(), what) })
}

// sees waits for the text, after what was waited for before.
func (x *terminal) sees(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	var all string
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		all = x.out.String()
		if at := re.FindStringIndex(all[x.seen:]); at != nil {
			x.seen += at[1]
			return
		}
	}
	x.t.Fatalf("%s does not come; after what was seen there is %q", pattern, all[x.seen:])
}
