package executor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// startOrder starts the command of an order, as the shim: born in the call's
// control group, so that there is no moment in which it is outside.
func startOrder(o order) (pid int, err error) {
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   toStrings(o.Env),
		Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{
			Setsid:    true, // no controlling terminal, a process group of its own
			Pdeathsig: unix.SIGKILL,
		},
	}
	if len(o.Stdin) > 0 {
		input, err := inputFile(o)
		if err != nil {
			return 0, err
		}
		defer unix.Close(input)
		attr.Files[0] = uintptr(input)
	}
	if o.As != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: o.As.UID, Gid: o.As.GID, Groups: o.As.Groups}
	}
	if o.Sandbox != nil && o.Sandbox.NoNetwork {
		attr.Sys.Cloneflags |= unix.CLONE_NEWNET
	}
	if o.Group == "" {
		return syscall.ForkExec(string(o.Path), toStrings(o.Argv), attr)
	}
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, groupFD
	pid, err = syscall.ForkExec(string(o.Path), toStrings(o.Argv), attr)
	if errors.Is(err, unix.ENOSYS) {
		attr.Sys.UseCgroupFD = false
		return startInside(o, attr)
	}
	return pid, err
}

// startInside is for where clone3 is not to be had, by which a process is born in
// another group than its parent's: systemd's RestrictNamespaces takes it away. The
// shim goes into the group for as long as the fork takes. A kill of the group in
// that moment takes the shim along, and leaves the kernel nothing to be reaped by
// it but the command, which was in the group too.
func startInside(o order, attr *syscall.ProcAttr) (pid int, err error) {
	if err := moveTo(o.Group); err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(string(o.Path), toStrings(o.Argv), attr)
	// The daemon's own group is above the one of its calls.
	return pid, errors.Join(err, moveTo(filepath.Dir(filepath.Dir(o.Group))))
}

// moveTo puts this process into a control group, from a thread that no sandbox
// holds.
func moveTo(group string) error {
	moved := make(chan error)
	go func() { moved <- os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0) }()
	return <-moved
}

// inputFile is a file without a name that has the order's input: nobody has to
// stand by and write it, as into a pipe.
func inputFile(o order) (fd int, err error) {
	if fd, err = unix.MemfdCreate("stdin", unix.MFD_CLOEXEC); err != nil {
		return -1, err
	}
	for rest := o.Stdin; len(rest) > 0 && err == nil; {
		var n int
		n, err = unix.Write(fd, rest)
		rest = rest[max(0, n):]
	}
	if err == nil {
		_, err = unix.Seek(fd, 0, io.SeekStart)
	}
	if err == nil && o.As != nil { // so that /dev/stdin can be opened too
		err = unix.Fchown(fd, int(o.As.UID), int(o.As.GID))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
