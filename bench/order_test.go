package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// syncDelay is how much longer strace makes each fdatasync take: an END that did
// not wait for it would be with the recipient long before.
const syncDelay = 20 * time.Millisecond

// traced is one system call of the daemon or of what it starts, as strace has
// seen it begin and end: the numbers are lines of the trace, in which each
// process stands still until it is written.
type traced struct {
	begun, ended int
	at           time.Time // when it began
	text         string    // name, arguments and result
}

var (
	traceLine    = regexp.MustCompile(`^(\d+) +(\d+)\.(\d{6}) (.*)$`)
	traceResumed = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
)

// readTrace reads what strace has written.
func readTrace(t *testing.T, path string) (all []*traced) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	open := make(map[string]*traced) // by process
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		m := traceLine.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Fatalf("line %d of the trace: %.200q", n, lines.Text())
		}
		text := m[4]
		if rest := traceResumed.FindStringSubmatch(text); rest != nil {
			if c := open[m[1]]; c != nil {
				c.text, c.ended = c.text+rest[1], n
				delete(open, m[1])
			}
			continue
		}
		seconds, _ := strconv.ParseInt(m[2], 10, 64)
		micros, _ := strconv.ParseInt(m[3], 10, 64)
		c := &traced{begun: n, ended: n, at: time.Unix(seconds, micros*1000), text: text}
		if before, unfinished := strings.CutSuffix(text, " <unfinished ...>"); unfinished {
			c.text, c.ended = before, math.MaxInt
			open[m[1]] = c
		}
		all = append(all, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// attachStrace watches the daemon, and what it starts, until stop.
func attachStrace(t *testing.T, pid int, to string) (stop func()) {
	t.Helper()
	return attachStraceFor(t, pid, to, "-y", "-e", "trace=write,fdatasync,execve",
		"-e", fmt.Sprintf("inject=fdatasync:delay_exit=%d", syncDelay.Microseconds()))
}

// attachStraceFor is attachStrace for what the arguments say.
func attachStraceFor(t *testing.T, pid int, to string, args ...string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skipf("strace is not installed: %v", err)
	}
	cmd := exec.Command(path, append([]string{"-f", "-p", strconv.Itoa(pid), "-o", to, "-s", "65536",
		"--absolute-timestamps=format:unix,precision:us", "-e", "signal=none", "--quiet=exit"}, args...)...)
	told, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(told)
		lines.Scan()
		attached <- lines.Text()
		_, _ = io.Copy(io.Discard, told)
	})
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets go of them
		reading.Wait()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	if said := <-attached; !strings.Contains(said, "attached") {
		stop()
		t.Skipf("strace cannot watch the daemon here: %s", said)
	}
	return stop
}

// A1: of every call the intent is written, and then synced, before anything of
// it is executed; the outcome is written after that, and synced before END is
// sent. The kernel is the witness.
func TestNothingIsExecutedBeforeItsIntentIsOnTheDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("10m", "test.echo")
	session := s.connect()
	trace := filepath.Join(t.TempDir(), "trace")
	stop := attachStrace(t, s.daemon.cmd.Process.Pid, trace)
	ends := make([]time.Time, orderedCalls)
	for i := range orderedCalls {
		r, err := session.Call(t.Context(), "test.echo", []call.Param{{Name: "text", Value: fmt.Sprintf("order-%d-", i)}}, io.Discard, io.Discard)
		ends[i] = time.Now()
		if err != nil || r.Cause != call.Exited || r.Status != 0 {
			t.Fatalf("call %d: %+v, %v", i, r, err)
		}
		time.Sleep(time.Until(ends[i].Add(50 * time.Millisecond))) // the rate is 20 a second: there is nothing to wait for but time
	}
	stop()
	all := readTrace(t, trace)
	for i := range orderedCalls {
		if err := checkOrder(all, fmt.Sprintf("order-%d-", i), ends[i]); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	t.Logf("%d calls in order, in a trace of %d system calls", orderedCalls, len(all))
}

// connect is the vendor's client, in this process.
func (s *site) connect() *client.Session {
	s.t.Helper()
	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("vendor.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^OPENSCOPE-[A-Z0-9-]+.*$`).FindString(string(text))
	identity, err := handle.ParseRecipientIdentity(key)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	session, err := client.Connect(ctx, client.Config{Handle: h, Identity: identity, StateDir: s.path("client"), Rand: rand.Reader})
	if err != nil {
		s.t.Fatalf("connecting: %v", err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}

var callMember = regexp.MustCompile(`\\"call\\":\\"([0-9a-f]+)\\"`)

// find is the first call of the trace that begins after a line and is what is
// looked for.
func find(all []*traced, after int, what string, is func(c *traced) bool) (*traced, error) {
	for _, c := range all {
		if c.begun > after && is(c) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("there is no %s after line %d of the trace", what, after)
}

// logged is a write to the log that has all of these.
func logged(parts ...string) func(c *traced) bool {
	return func(c *traced) bool {
		if !strings.HasPrefix(c.text, "write(") || !strings.Contains(c.text, "/audit.log>") {
			return false
		}
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(c.text, part) })
	}
}

// synced is a sync of the log that went well.
func synced(c *traced) bool {
	return strings.HasPrefix(c.text, "fdatasync(") && strings.Contains(c.text, "/audit.log>") && strings.Contains(c.text, " = 0")
}

// checkOrder looks for one call's steps in the trace.
func checkOrder(all []*traced, text string, end time.Time) error {
	intent, err := find(all, 0, "intent", logged(`\"kind\":\"call\"`, text))
	if err != nil {
		return err
	}
	onDisk, err := find(all, intent.ended, "sync of the intent", synced)
	if err != nil {
		return err
	}
	// The first process that knows of the call at all, whichever it is.
	executed, err := find(all, 0, "execution", func(c *traced) bool {
		return strings.HasPrefix(c.text, "execve(") && strings.Contains(c.text, text)
	})
	if err != nil {
		return err
	}
	if executed.begun < onDisk.ended {
		return fmt.Errorf("line %d executes it, and line %d is the end of the sync of its intent", executed.begun, onDisk.ended)
	}
	id := callMember.FindStringSubmatch(intent.text)
	if id == nil {
		return fmt.Errorf("the intent names no call: %.300s", intent.text)
	}
	outcome, err := find(all, 0, "outcome", logged(`\"kind\":\"result\"`, id[1]))
	if err != nil {
		return err
	}
	if outcome.begun < executed.ended {
		return fmt.Errorf("line %d enters the outcome, and line %d executes it", outcome.begun, executed.ended)
	}
	kept, err := find(all, outcome.ended, "sync of the outcome", synced)
	if err != nil {
		return err
	}
	if early := kept.at.Add(syncDelay).Sub(end); early > 0 {
		return fmt.Errorf("the recipient had END %v before the outcome was on the disk", early)
	}
	return nil
}
