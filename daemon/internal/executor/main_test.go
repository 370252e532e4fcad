package executor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Shim()
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		role()
		return
	}
	if role, ok := roles[lastWord(os.Args)]; ok {
		role()
		return
	}
	goleak.VerifyTestMain(m)
}

// roles are what this program does when it is started to be looked at.
var roles = map[string]func(){
	"show-argv":          showArgv,
	"show-surrounding":   showSurrounding,
	"run-a-daemon":       runDaemon,
	"resist":             resist,
	"run-for-others":     runForOthers,
	"run-over-ssh":       runOverSSH,
	"run-without-clone3": runWithoutClone3,
	"held-child":         heldChild,
	"crash":              crash,
}

const roleVariable = "EXECUTOR_TEST_ROLE"

func lastWord(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[len(args)-1]
}

// self is this program, as the command of a job.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func showArgv() {
	for _, word := range os.Args[1:] {
		fmt.Printf("%s\x00", word)
	}
}

// me is the account the tests run under.
func me(t testing.TB) Identity {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return identityOf(t, u)
}

func identityOf(t testing.TB, u *user.User) Identity {
	t.Helper()
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{Name: u.Username, UID: uint32(uid), GID: uint32(gid)}
}

// collected is output that may be read while it is written.
type collected struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (c *collected) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes.Write(p)
}

func (c *collected) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes.String()
}

func newExecutor(t testing.TB, cfg ExecConfig) *Exec {
	t.Helper()
	e, err := NewExec(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// containments are the two ways to hold a job together.
func containments(t *testing.T, f func(t *testing.T, e *Exec)) {
	for name, cfg := range map[string]ExecConfig{"control group": {}, "process tree": {WithoutGroups: true}} {
		t.Run(name, func(t *testing.T) {
			e := newExecutor(t, cfg)
			if !cfg.WithoutGroups && e.groups == nil {
				t.Skip("no control group is to be had here: ", e.why)
			}
			f(t, e)
		})
	}
}

// run runs an argv to its end.
func run(t testing.TB, e Executor, argv ...string) (stdout, stderr string, o Outcome) {
	t.Helper()
	var out, errs collected
	o = e.Execute(t.Context(), Job{Argv: argv, As: me(t), Stdout: &out, Stderr: &errs})
	return out.String(), errs.String(), o
}

// until polls for what cannot be waited for.
func until(t testing.TB, within time.Duration, what string, met func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// alive counts the processes whose command line has the word.
func alive(word string) int {
	n := 0
	for _, p := range allProcesses() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err == nil && bytes.Contains(line, []byte(word)) {
			n++
		}
	}
	return n
}

// asleep counts the sleeps of a script, and not the shells that have the word
// in their command line because they are to start one.
func asleep(word string) int {
	n := 0
	for _, p := range allProcesses() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err == nil && string(line) == "sleep\x0097531."+word+"\x00" {
			n++
		}
	}
	return n
}

// openFiles counts the descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// runDaemon executes a command as a daemon would, until it is killed.
func runDaemon() {
	u, err := user.Current()
	if err != nil {
		panic(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	e, err := NewExec(ExecConfig{WithoutGroups: os.Getenv("WITHOUT_GROUPS") != ""})
	if err != nil {
		panic(err)
	}
	e.Execute(context.Background(), Job{
		Argv: strings.Split(os.Getenv("DAEMON_ARGV"), "\x1f"),
		As:   Identity{Name: u.Username, UID: uint32(uid), GID: uint32(gid)}, Stdout: os.Stdout,
	})
}

// resist ignores every signal that can be ignored, and waits.
func resist() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	fmt.Println("resisting")
	time.Sleep(time.Hour)
}
