package executor

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heldChild is what a child does to be looked at: it tries what it is told, line
// by line, and says what came of it.
func heldChild() {
	conn, err := net.FileConn(os.NewFile(ChildFD, "daemon"))
	if err != nil {
		panic(err)
	}
	in := bufio.NewScanner(conn)
	for in.Scan() {
		what, path, _ := strings.Cut(in.Text(), " ")
		fmt.Fprintln(conn, attemptTo(what, path))
	}
}

func attemptTo(what, path string) string {
	var err error
	switch what {
	case "hold":
		held, err := HoldSelf()
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%v %v", held.NoNewPrivileges, held.Syscalls)
	case "read":
		_, err = os.ReadFile(path)
	case "list":
		_, err = os.ReadDir(path)
	case "write":
		err = os.WriteFile(path, []byte("x"), 0o600)
	case "execute":
		_, err = syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{})
	case "socket":
		var family, fd int
		if family, err = strconv.Atoi(path); err == nil {
			if fd, err = unix.Socket(family, unix.SOCK_STREAM, 0); err == nil {
				_ = unix.Close(fd)
			}
		}
	case "listen":
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			_ = l.Close()
		}
	case "signal":
		var pid int
		if pid, err = strconv.Atoi(path); err == nil {
			err = unix.Kill(pid, 0)
		}
	case "environment":
		return fmt.Sprint(len(os.Environ()))
	case "thread":
		done := make(chan struct{})
		for range 20 {
			go func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil); done <- struct{}{} }()
		}
		for range 20 {
			<-done
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return fmt.Sprint(err)
}

// asked has the child try something.
type asked struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func (a asked) to(what string) string {
	a.t.Helper()
	fmt.Fprintln(a.conn, what)
	if !a.in.Scan() {
		a.t.Fatalf("the child does not say what came of %q: %v", what, a.in.Err())
	}
	return a.in.Text()
}

func TestAChildIsHeldFromItsFirstInstruction(t *testing.T) {
	if LandlockVersion() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	t.Setenv("SECRET", "which no child sees")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // as whatever started the daemon may leave one open
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	cfg := ChildConfig{Argv: []string{"openscope", "held-child"}, Read: []string{"/etc/hosts", "/no/such/file"}}
	if os.Geteuid() == 0 {
		cfg.As = &Identity{Name: "nobody", UID: 65534, GID: 65534}
	}
	c, err := StartChild(cfg)
	if err != nil {
		t.Fatal(err)
	}
	child := asked{t, c.Conn, bufio.NewScanner(c.Conn)}
	const denied, refused = "permission denied", "operation not permitted"
	for what, want := range map[string]string{
		"read /etc/hosts": "<nil>", "read /etc/passwd": denied, "read " + dir + "/file": denied, "list /": denied,
		"read /proc/self/environ": denied, "write /tmp/openscope-child": denied, "environment": "0", "execute /bin/true": denied,
		"thread": "<nil>",
	} {
		if got := child.to(what); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID))
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1\n") || !strings.Contains(string(status), "CapEff:\t0000000000000000\n") {
		t.Errorf("its status: %v\n%s", err, status)
	}
	if cfg.As != nil && (!strings.Contains(string(status), "Uid:\t65534\t65534\t65534\t65534\n") || !strings.Contains(string(status), "Groups:\t \n")) {
		t.Errorf("who it is:\n%s", status)
	}
	if files := openOf(t, c.PID); strings.Contains(files, "passwd") {
		t.Errorf("it has what was open in this process: %s", files)
	}
	if got := child.to("hold"); auditArch != 0 && got != "true true" {
		t.Fatalf("it holds itself: %s", got)
	}
	for what, want := range map[string]string{
		"execute /bin/true": refused, "socket 1": refused, "socket 2": "<nil>", "socket 10": "<nil>", "socket 17": refused,
		"listen": denied, fmt.Sprint("signal ", os.Getpid()): refused, "thread": "<nil>", "read /etc/hosts": "<nil>",
	} {
		if got := child.to(what); auditArch != 0 && got != want && !(what == "listen" && got == refused) {
			t.Errorf("once it holds itself, %s: %s, want %s", what, got, want)
		}
	}
	if err := c.Stop(); err != nil {
		t.Errorf("its end: %v", err)
	}
}

// openOf is what a process has open.
func openOf(t *testing.T, pid int) string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		if to, err := os.Readlink(filepath.Join(dir, name.Name())); err == nil {
			all = append(all, to)
		}
	}
	return strings.Join(all, " ")
}

// The threads of this process are what they were: only the one that forks is held.
func TestStartingAChildHoldsNobodyElse(t *testing.T) {
	for range 20 {
		c, err := StartChild(ChildConfig{Argv: []string{"openscope", "held-child"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	// The thread that was thrown away last may still be on its way out.
	held := ""
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if held = heldThread(t); held == "" {
			break
		}
	}
	if held != "" {
		t.Errorf("a thread of this process is held:\n%s", held)
	}
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		t.Error(err)
	}
}

// heldThread is the status of a thread of this process that can gain nothing.
func heldThread(t *testing.T) string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		if status, err := os.ReadFile(task); err == nil && strings.Contains(string(status), "NoNewPrivs:\t1\n") {
			return string(status)
		}
	}
	return ""
}

// What a child says as it crashes is told, and no more of it than a line.
func TestAChildThatCrashesSaysWhy(t *testing.T) {
	c, err := StartChild(ChildConfig{Argv: []string{"openscope", "crash"}})
	if err != nil {
		t.Fatal(err)
	}
	<-c.ended
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "a reason?with escapes") || len(err.Error()) > 2*maxLastWords {
		t.Errorf("its end: %v", err)
	}
}

func crash() { panic("a reason\x1bwith escapes\nand more") }
