package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
)

// netHalf is the process that faces the network for a daemon in the process pid; 0
// is none.
func netHalf(pid int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		if fields := strings.Fields(string(rest)); len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(pid) {
			continue
		}
		dir := filepath.Dir(path)
		if line, err := os.ReadFile(dir + "/cmdline"); err == nil && string(line) == "openscope\x00net\x00" {
			child, _ := strconv.Atoi(filepath.Base(dir))
			return child
		}
	}
	return 0
}

// The process that reads what the network says has no rights to lose, and the one
// that has them opens no socket to the network, and reads from none.
func TestTheCoreReadsNothingFromTheNetworkAndTheNetHalfHasNoRights(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	core := s.daemon.cmd.Process.Pid
	child := netHalf(core)
	if child == 0 {
		t.Fatal("there is no net half")
	}
	s.open("5m", "test.echo", "test.count")
	coreTrace, netTrace := filepath.Join(t.TempDir(), "core"), filepath.Join(t.TempDir(), "net")
	const calls = "trace=%network,read,readv,pread64,recvmmsg,sendmmsg,io_uring_setup"
	stopCore := attachStraceFor(t, core, coreTrace, "-yy", "-e", calls)
	stopNet := attachStraceFor(t, child, netTrace, "-yy", "-e", calls)
	session := s.connect()
	for range 3 {
		if r, err := session.Call(t.Context(), "test.count", nil, io.Discard, io.Discard); err != nil || !r.Complete {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	s.must("openscope", "share", "extend", s.id, "--verb", "test.mark")
	if r, err := session.Call(t.Context(), "test.mark", nil, io.Discard, io.Discard); err != nil || r.Status != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.must("openscope", "share", "revoke", s.id)
	stopCore()
	stopNet()

	inet := regexp.MustCompile(`(socket|connect|bind)\(.*AF_INET|<(TCP|UDP)(v6)?:`)
	if all := readTrace(t, netTrace); !mentionsCall(all, regexp.MustCompile(`^recvm?msg\(\d+<UDP`)) {
		t.Errorf("strace does not see the net half read from the relay, in %d system calls: this shows nothing", len(all))
	}
	all := readTrace(t, coreTrace)
	if len(all) < 100 || !mentionsCall(all, regexp.MustCompile(`^read\(\d+<UNIX-STREAM`)) {
		t.Errorf("strace does not see the core read from its pipe, in %d system calls: this shows nothing", len(all))
	}
	for _, c := range all {
		if inet.MatchString(c.text) {
			t.Errorf("the core: %.300s", c.text)
		}
	}
	s.checkNetHalf(child)
}

func mentionsCall(all []*traced, what *regexp.Regexp) bool {
	for _, c := range all {
		if what.MatchString(c.text) {
			return true
		}
	}
	return false
}

// checkNetHalf looks at what the kernel says of the process.
func (s *site) checkNetHalf(pid int) {
	t := s.t
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the net half's status lacks %q", want)
		}
	}
	if os.Geteuid() == 0 && strings.Contains(string(status), "Uid:\t0") {
		t.Errorf("the net half is root:\n%s", status)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || len(env) > 0 {
		t.Errorf("its environment: %q, %v", env, err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	for _, want := range []string{`Max core file size +0 +0 `, `Max file size +0 +0 `, `Max open files +256 +256 `} {
		if err != nil || !regexp.MustCompile(want).Match(limits) {
			t.Errorf("its limits lack %q: %v", want, err)
		}
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || len(names) == 0 {
		t.Fatalf("its descriptors: %d, %v", len(names), err)
	}
	for _, name := range names {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, name.Name()))
		if err == nil && to != "/dev/null" && !strings.HasPrefix(to, "socket:") && !strings.HasPrefix(to, "anon_inode:[event") && !(name.Name() == "2" && strings.HasPrefix(to, "pipe:")) {
			t.Errorf("the net half has %s open, as %s", to, name.Name())
		}
	}
	if out := s.must("openscope", "status", "--json"); !strings.Contains(out, fmt.Sprintf(`"network":{"pid":%d,`, pid)) || !strings.Contains(out, `"no_new_privileges":true`) {
		t.Errorf("status says: %s", out)
	}
}

// What a daemon starts as its net half is for nobody to start by hand.
func TestTheNetHalfIsNotStartedByHand(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := run(t, nil, "openscope", "net")
	if code != 2 || stdout != "" || stderr != "openscope: net is started by the daemon, and by nobody else\nhint: run: openscope daemon\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if help, _, _ := run(t, nil, "openscope", "--help"); strings.Contains(help, "net ") {
		t.Errorf("it is listed:\n%s", help)
	}
}

// steady is a call whose output is known, and what came of it.
type steady struct {
	name           string
	verb           string
	lines          int
	stdout, stderr bytes.Buffer
	r              client.Result
	err            error
}

func (c *steady) want() (stdout, stderr []byte) {
	var out, errs bytes.Buffer
	for i := 1; i <= c.lines; i++ {
		if c.verb == "test.bulk" {
			fmt.Fprintln(&out, i)
			continue
		}
		fmt.Fprintf(&out, "line %d of %s\n", i, c.name)
		fmt.Fprintf(&errs, "and %d\n", i)
	}
	return out.Bytes(), errs.Bytes()
}

// The net half is killed at random moments under running calls. The sessions go
// on with the next one, no call runs twice, and no output is passed off as whole
// that is not.
func TestTheNetHalfMayBeKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, worldConfig{netProcess: true})
	w.takesItsTime()
	_, h := w.open("10m", "test.steps", "test.bulk", "test.hold")
	s := w.returning(h, nil)
	random := rand.New(rand.NewPCG(1, 7))
	whole, all := 0, 0
	for i := range netKills {
		if i > 0 && i%20 == 0 { // a client that has no rest for five minutes tries less often
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			_, h = w.open("10m", "test.steps", "test.bulk", "test.hold")
			s = w.returning(h, nil)
		}
		calls := []*steady{
			{name: fmt.Sprintf("steps-%d", i), verb: "test.steps", lines: 8},
			{name: fmt.Sprintf("bulk-%d", i), verb: "test.bulk", lines: 20_000},
			{name: fmt.Sprintf("more-%d", i), verb: "test.bulk", lines: 1_000},
		}
		w.underKill(s, random, calls)
		for _, c := range calls {
			all++
			if w.judgeSteady(c) {
				whole++
			}
		}
	}
	t.Logf("%d kills: of %d calls %d came whole", netKills, all, whole)
	if whole < all*9/10 {
		t.Errorf("of %d calls %d came whole", all, whole)
	}
	for name, n := range w.ranOf() {
		if n != 1 {
			t.Errorf("%s ran %d times", name, n)
		}
	}
}

// underKill makes the calls, and kills the net half at some moment.
func (w *world) underKill(s *client.Session, random *rand.Rand, calls []*steady) {
	w.t.Helper()
	var running sync.WaitGroup
	for _, c := range calls {
		params := []call.Param{{Name: "name", Value: c.name}, {Name: "lines", Value: strconv.Itoa(c.lines)}}
		if c.verb == "test.steps" {
			params = append(params, call.Param{Name: "pause", Value: "0.05"})
		}
		running.Go(func() {
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
			defer cancel()
			c.r, c.err = s.Call(ctx, c.verb, params, &c.stdout, &c.stderr)
		})
	}
	time.Sleep(time.Duration(random.Int64N(int64(400 * time.Millisecond)))) // the moment is what is random
	var pid int
	until(w.t, 20*time.Second, "there is a net half", func() bool { pid = netHalf(os.Getpid()); return pid != 0 })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	running.Wait()
}

// judgeSteady reports whether a call came whole; one that did not must say so.
func (w *world) judgeSteady(c *steady) bool {
	w.t.Helper()
	stdout, stderr := c.want()
	equal := bytes.Equal(stdout, c.stdout.Bytes()) && bytes.Equal(stderr, c.stderr.Bytes())
	said := c.err == nil && c.r.Cause == call.Exited && c.r.Complete
	if said && !equal {
		w.t.Errorf("%s is said to be whole, and is not", c.name)
	}
	if !bytes.HasPrefix(stdout, c.stdout.Bytes()) || !bytes.HasPrefix(stderr, c.stderr.Bytes()) {
		w.t.Errorf("%s: its output is not what it wrote, from the beginning", c.name)
	}
	if !said {
		w.t.Logf("%s: %v, complete %v, %v: %s", c.name, c.r.Cause, c.r.Complete, c.err, c.r.Reason)
	}
	return said
}

// ranOf counts the runs of each name.
func (w *world) ranOf() map[string]int {
	w.t.Helper()
	text, err := os.ReadFile(w.path("ran"))
	if err != nil {
		w.t.Fatal(err)
	}
	counts := make(map[string]int)
	for name := range strings.FieldsSeq(string(text)) {
		counts[name]++
	}
	return counts
}
