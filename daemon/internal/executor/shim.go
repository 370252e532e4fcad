package executor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The shim stands between the daemon and one command: the daemon's own program,
// started again under shimName. It keeps the daemon's identity, so that the
// command, which runs as the issuer, can neither signal nor trace it (a daemon
// that is not root has only its own user to give: there the command could kill
// the shim, and the daemon too). As child subreaper it inherits every process
// the command leaves behind, however often that forks or calls setsid; it ends
// them when the command has ended, or when the control pipe closes, which the
// kernel does even for a daemon that was killed.
//
// The shim is not in the call's control group. It outlives the group's kill to
// reap, and after a daemon's death takes the group away.
const shimName = "openscope-shim"

// The shim's descriptors.
const (
	controlFD = 3 // read: the length of the order, the order, then nothing until the daemon closes it
	reportFD  = 4 // write: one report, before the shim exits
	groupFD   = 5 // the folder of the call's control group, if it has one
)

// maxOrder bounds an encoded order: words in base64, and room to spare.
const maxOrder = 4 * maxArgvBytes

// linger is how long processes may outlive their command before the shim kills
// them: time for the end of a pipeline to write out what it has.
const linger = 100 * time.Millisecond

// order is what the shim is to run. Words are bytes: JSON would mend strings.
type order struct {
	Path  []byte
	Argv  [][]byte
	Env   [][]byte
	As    *credential // nil: as the shim itself
	Group string      // the path behind groupFD, or empty
	Stdin []byte      `json:",omitempty"` // nothing: /dev/null
	// Sandbox holds the command, and not the shim, which has to end it.
	Sandbox *Sandbox `json:",omitempty"`
}

type credential struct {
	UID, GID uint32
	Groups   []uint32
}

// A report is a kind and a number.
const (
	reportEnded   = 'e' // the command's wait status
	reportFailed  = 'f' // the errno that starting it failed with
	reportSandbox = 's' // the errno that entering its sandbox failed with
	reportSize    = 5
)

// Shim must be the first thing that main does, and TestMain of a package that
// executes. In a process that the executor started as shim it never returns;
// anywhere else it does nothing.
func Shim() {
	if len(os.Args) != 1 || os.Args[0] != shimName || !isPipe(controlFD) || !isPipe(reportFD) {
		return
	}
	// no_new_privs belongs to a thread, and the parent-death signal comes when
	// the thread that forked ends: everything stays on this one.
	runtime.LockOSThread()
	// unix.Exit, not os.Exit: what a program does at its exit (the race detector
	// waits a second) is not the shim's, and the daemon waits for it.
	if err := runShim(); err != nil {
		unix.Exit(1)
	}
	unix.Exit(0)
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func runShim() error {
	// A terminal's or service manager's signals are for the daemon; the pipe
	// tells the shim when to end. Notify, not Ignore, which would be inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	restoreIgnored()
	if err := closeOnExec(); err != nil {
		return err
	}
	control := os.NewFile(controlFD, "control")
	o, err := readOrder(control)
	if err != nil {
		return err
	}
	if err := confine(); err != nil {
		return err
	}
	if err := o.Sandbox.enter(); err != nil {
		return sendReport(reportSandbox, errnoOf(err))
	}
	pid, err := startOrder(o)
	if err != nil {
		return sendReport(reportFailed, errnoOf(err))
	}
	// A sandbox holds this thread too. The rest is for one outside of it; this
	// one waits, for the command dies when it ends.
	rest := make(chan error)
	go func() {
		if err := letGoOfOutput(); err != nil {
			rest <- err // the command dies by its parent-death signal
			return
		}
		rest <- watch(pid, control, o.Group)
	}()
	return <-rest
}

// restoreIgnored gives signals that this process was started to ignore their
// default action back, for the command inherits it. What the runtime handles it
// restores itself when it forks; of the rest (32, say, where a parent used POSIX
// timers) it knows nothing.
func restoreIgnored() {
	// The kernel's struct sigaction begins with the handler: 0 is the default,
	// 1 ignores. It is no larger than this on any architecture.
	var now, byDefault [8]uintptr
	const maskBytes = 8
	for number := uintptr(1); number <= 64; number++ {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, 0, uintptr(unsafe.Pointer(&now)), maskBytes, 0, 0)
		if errno == 0 && now[0] == 1 {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&byDefault)), 0, maskBytes, 0, 0)
		}
	}
}

// closeOnExec keeps every descriptor but the standard three from the command.
func closeOnExec() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

func readOrder(control io.Reader) (order, error) {
	var size [4]byte
	if _, err := io.ReadFull(control, size[:]); err != nil {
		return order{}, fmt.Errorf("reading the order: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxOrder {
		return order{}, fmt.Errorf("reading the order: %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(control, body); err != nil {
		return order{}, fmt.Errorf("reading the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return order{}, fmt.Errorf("reading the order: %w", err)
	}
	return o, nil
}

func (o order) encode() ([]byte, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if len(body) > maxOrder {
		return nil, refuse("an order of %d bytes", len(body))
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// confine sets what the command inherits through the shim.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming subreaper: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	// A daemon that is not root may hold capabilities that would pass on.
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	if err := limit(unix.RLIMIT_CORE, 0, 0); err != nil {
		return err
	}
	if err := limit(unix.RLIMIT_NOFILE, softFiles, hardFiles); err != nil {
		return err
	}
	unix.Umask(0o077)
	return nil
}

// How many descriptors a command may have open: the usual soft limit, and
// enough above it for programs that raise theirs.
const (
	softFiles = 1024
	hardFiles = 4096
)

// limit sets a resource limit, or leaves a lower one as it is.
func limit(resource int, soft, hard uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("reading a resource limit: %w", err)
	}
	hard = min(hard, now.Max)
	// syscall's, for the runtime must learn not to restore its own number.
	if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: min(soft, hard), Max: hard}); err != nil {
		return fmt.Errorf("setting a resource limit: %w", err)
	}
	return nil
}

// letGoOfOutput puts /dev/null in place of the job's pipes: they must end when
// the job's last process does.
func letGoOfOutput() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for fd := 1; fd <= 2; fd++ {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return err
		}
	}
	return unix.Close(null)
}

// watch reaps until no descendant is left and reports how the command ended.
func watch(pid int, control io.Reader, group string) error {
	orphaned := make(chan struct{})
	go func() {
		defer close(orphaned)
		_, _ = io.Copy(io.Discard, control)
	}()
	ended, alone := make(chan unix.WaitStatus, 1), make(chan struct{})
	go reap(pid, ended, alone)

	status, known := unix.WaitStatus(0), true
	select {
	case <-orphaned:
		endAll(group, alone)
		status, known = <-ended
	case status, known = <-ended:
		if !within(linger, alone, orphaned) {
			endAll(group, alone)
		}
	}
	if !known {
		return errors.New("the command's status is lost")
	}
	err := sendReport(reportEnded, uint32(status))
	if group != "" {
		// The daemon does this too, if it lives.
		removeGroup(group)
		_ = unix.Rmdir(filepath.Dir(group))
	}
	return err
}

// reap waits for every child, own or inherited, until there is none.
func reap(command int, ended chan<- unix.WaitStatus, alone chan<- struct{}) {
	defer close(alone)
	defer close(ended)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // ECHILD
		}
		if pid == command && (status.Exited() || status.Signaled()) {
			ended <- status
		}
	}
}

// within reports whether alone closed in time, and before orphaned.
func within(d time.Duration, alone, orphaned <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-alone:
		return true
	case <-orphaned:
	case <-timer.C:
	}
	return false
}

// How often the end of a job is seen to. Whoever reads the process tree takes
// the processor from those that are to end, and locks that they need: a
// thousand exits take far longer while it is read over and over.
const (
	// exodus is for a control group: the kernel ends it by itself, and what is left
	// of it is looked for rarely.
	exodus = 200 * time.Millisecond
	// sweepPause is between two sweeps of the process tree. Where there is a group
	// too, it grows up to maxPause once they find nobody that is not killed yet.
	sweepPause = 5 * time.Millisecond
	maxPause   = 80 * time.Millisecond
)

// endAll kills until no descendant is left: the control group in one step, and
// the process tree sweep by sweep, in case there is no group or one left it.
func endAll(group string, alone <-chan struct{}) {
	killed := make(map[int]bool)
	pause := sweepPause
	for first := true; ; first = false {
		if group != "" && killGroup(group) == nil && (first || !groupEmpty(group)) && within(exodus, alone, nil) {
			return
		}
		if fresh := killDescendants(os.Getpid(), killed); fresh > 0 || group == "" {
			pause = sweepPause
		} else {
			pause = min(2*pause, maxPause)
		}
		if within(pause, alone, nil) {
			return
		}
	}
}

func sendReport(kind byte, number uint32) error {
	_, err := unix.Write(reportFD, binary.BigEndian.AppendUint32([]byte{kind}, number))
	return err
}

func errnoOf(err error) uint32 {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return uint32(errno)
	}
	return uint32(unix.EIO)
}

func toStrings(words [][]byte) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}
