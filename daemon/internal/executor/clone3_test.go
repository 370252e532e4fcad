package executor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runWithoutClone3 is a daemon under a filter like the one that systemd's
// RestrictNamespaces makes. It runs the job "show" and prints what that said, then
// the job "resist", which it ends.
func runWithoutClone3() {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE3, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: seccompErrno | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: seccompAllow},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	check := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompSetModeFilter, seccompSyncThreads, uintptr(unsafe.Pointer(&program))); errno != 0 {
		check(errno)
	}
	e, err := NewExec(ExecConfig{})
	check(err)
	as := Identity{Name: "root"}
	var out bytes.Buffer
	sandbox := &Sandbox{Read: []string{"/"}}
	o := e.Execute(context.Background(), Job{Argv: []string{"/bin/cat", "/proc/self/cgroup"}, As: as, Stdout: &out, Stderr: &out, Sandbox: sandbox})
	check(o.Err)
	fmt.Print("command in ", out.String())
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	e.Execute(ctx, Job{Argv: []string{"/bin/sh", "-c", "trap '' TERM; sleep 97532 & setsid sleep 97532 & wait; sleep 97532"}, As: as, Stdout: &out, Stderr: &out})
	fmt.Println("ended in time:", time.Since(began) < 5*time.Second)
}

// From linux/seccomp.h.
const (
	seccompSetModeFilter = 1
	seccompSyncThreads   = 1
	seccompErrno         = 0x0005_0000
	seccompAllow         = 0x7fff_0000
)

// Under systemd's RestrictNamespaces there is no clone3, and commands have to be
// born in their control groups all the same.
func TestCommandsAreBornInTheirGroupWhereClone3IsTakenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make control groups")
	}
	e, err := NewExec(ExecConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if e.groups == nil {
		t.Skip("there are no control groups to be had here: ", e.why)
	}
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), roleVariable+"=run-without-clone3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), fmt.Sprintf("openscope-%d/call-", cmd.Process.Pid)) {
		t.Errorf("the command is not in a group of its own:\n%s", out)
	}
	if !strings.Contains(string(out), "ended in time: true") {
		t.Errorf("what resists is not ended:\n%s", out)
	}
	if found, _ := exec.Command("pgrep", "-f", "sleep 97532").Output(); len(found) > 0 {
		t.Errorf("left behind: %s", found)
	}
}
