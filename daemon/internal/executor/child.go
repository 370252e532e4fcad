package executor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ChildConfig is a part of the daemon that runs in a process of its own: the
// daemon's own program in another role, which is trusted to be what it is, and
// not with what it is fed.
type ChildConfig struct {
	// Argv tells the program its role. It finds its end of a socket pair at
	// [ChildFD], a pipe for the report of a crash at standard error, /dev/null as
	// the other two, nothing else open, and an empty environment.
	Argv []string
	// As is who it is; nil is the daemon's own user.
	As *Identity
	// Read are the files and folders it may read, those of them that are there.
	Read []string
}

// ChildFD is where a child finds its end of the socket pair.
const ChildFD = 3

// childGrace is how long a child has to end once its socket is closed.
const childGrace = 3 * time.Second

// Child is a running one.
type Child struct {
	// Conn is the daemon's end of the socket pair.
	Conn *net.UnixConn
	PID  int

	ended chan struct{}
	state error // how it ended; readable once ended is closed
}

// SocketPair is two connected ends in this process.
func SocketPair() (a, b *net.UnixConn, err error) {
	files, err := socketFiles()
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(files[:]...)
	first, err := net.FileConn(files[0])
	if err != nil {
		return nil, nil, err
	}
	second, err := net.FileConn(files[1])
	if err != nil {
		_ = first.Close()
		return nil, nil, err
	}
	return first.(*net.UnixConn), second.(*net.UnixConn), nil
}

func socketFiles() (files [2]*os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return files, fmt.Errorf("making a socket pair: %w", err)
	}
	return [2]*os.File{os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "daemon")}, nil
}

// StartChild starts one that can gain no privileges and, where the kernel has
// Landlock, open nothing but what it may read: held from its first instruction,
// because the thread that forks it is. It dies with the daemon.
func StartChild(cfg ChildConfig) (*Child, error) {
	// What this process was started with is not the child's.
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	files, err := socketFiles()
	if err != nil {
		return nil, err
	}
	defer closeAll(files[:]...)
	said, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer says.Close()
	conn, err := net.FileConn(files[0])
	if err != nil {
		_ = said.Close()
		return nil, err
	}
	c := &Child{Conn: conn.(*net.UnixConn), ended: make(chan struct{})}
	started := make(chan error)
	go c.live(cfg, files[1], says, said, started)
	if err := <-started; err != nil {
		_ = conn.Close()
		_ = said.Close()
		return nil, err
	}
	return c, nil
}

// live forks the child from a thread that is held as the child is to be, and
// keeps that thread for as long as the child lives: the parent-death signal comes
// when the thread ends. It is the runtime's no more after that.
func (c *Child) live(cfg ChildConfig, theirs, says, said *os.File, started chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() { // the main thread cannot be thrown away
		elsewhere := make(chan struct{})
		go func() {
			defer close(elsewhere)
			c.live(cfg, theirs, says, said, started)
		}()
		<-elsewhere
		runtime.UnlockOSThread()
		return
	}
	pid, err := forkHeld(cfg, theirs, says)
	if c.PID = pid; err != nil {
		started <- err
		return
	}
	started <- nil
	defer close(c.ended)
	defer said.Close()
	last := lastWords(said)
	var status unix.WaitStatus
	for {
		_, err = unix.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		c.state = err
	case status.Signaled():
		c.state = fmt.Errorf("it was ended by signal %d", status.Signal())
	case status.ExitStatus() != 0:
		c.state = fmt.Errorf("it ended with status %d: %s", status.ExitStatus(), last)
	}
}

// maxLastWords is how much of what a child complains of is shown.
const maxLastWords = 200

// lastWords is the first line of what a child says on its standard error, until
// that ends: it has nothing to say but why it crashes. What is not printable in it
// may come from strangers.
func lastWords(said *os.File) string {
	text := make([]byte, maxLastWords)
	n, _ := io.ReadFull(said, text)
	_, _ = io.Copy(io.Discard, said)
	line, _, _ := bytes.Cut(text[:n], []byte("\n"))
	for i, b := range line {
		if b < 0x20 || b > 0x7e {
			line[i] = '?'
		}
	}
	return string(line)
}

// forkHeld holds the calling thread and forks the child from it.
func forkHeld(cfg ChildConfig, theirs, says *os.File) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("giving up new privileges: %w", err)
	}
	// A daemon that is not root may hold capabilities that would pass on.
	err = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("giving up capabilities: %w", err)
	}
	if err := holdThread(cfg.Read); err != nil {
		return 0, fmt.Errorf("entering Landlock: %w", err)
	}
	attr := &syscall.ProcAttr{
		Dir: "/", Env: []string{},
		Files: []uintptr{null.Fd(), null.Fd(), says.Fd(), theirs.Fd()},
		// A terminal's signals are for the daemon, which tells the child when to end.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
	}
	if cfg.As != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: cfg.As.UID, Gid: cfg.As.GID}
	}
	pid, err = syscall.ForkExec("/proc/self/exe", cfg.Argv, attr)
	if err != nil {
		return 0, fmt.Errorf("starting %v: %w", cfg.Argv, err)
	}
	return pid, nil
}

// Stop waits until the child has ended, once its socket is closed, and kills one
// that does not. It says how it ended.
func (c *Child) Stop() error {
	_ = c.Conn.Close()
	late := time.NewTimer(childGrace)
	defer late.Stop()
	select {
	case <-c.ended:
		return c.state
	case <-late.C:
	}
	_ = unix.Kill(c.PID, unix.SIGKILL) // it is not reaped: the number is still its
	<-c.ended
	return c.state
}

// LandlockVersion is what this kernel's can hold a child by; 0 where it cannot.
func LandlockVersion() int {
	version, err := landlockVersion()
	if err != nil || version < oldest {
		return 0
	}
	return version
}
