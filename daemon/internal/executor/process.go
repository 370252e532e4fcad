package executor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insist is how often the killing of a job is repeated until its shim has gone;
// after lastTry times a shim with nothing left to look after is killed too.
const (
	insist  = 250 * time.Millisecond
	lastTry = 4
)

// outsideHold is how long a pipe may give nothing after the last process of
// the job, before whoever still holds it is taken for an outsider.
const outsideHold = 500 * time.Millisecond

// running is one job under way: its shim, its control group, its pipes.
type running struct {
	shim    *exec.Cmd
	group   *group // nil: none
	control *os.File
	report  *os.File
	stdout  *os.File
	stderr  *os.File
	gone    chan struct{} // closed when the shim has been reaped
}

// start starts the shim and gives it its order.
func (e *Exec) start(o order, job Job) (_ *running, err error) {
	r := &running{gone: make(chan struct{})}
	var theirs [4]*os.File // control, report, stdout, stderr
	defer func() {
		closeAll(theirs[:]...)
		if err != nil {
			r.release()
		}
	}()
	if e.groups != nil {
		if r.group, err = e.groups.open(); err != nil {
			return nil, err
		}
		o.Group = r.group.path
	}
	if theirs[0], r.control, err = os.Pipe(); err != nil {
		return nil, err
	}
	for i, ours := range []**os.File{&r.report, &r.stdout, &r.stderr} {
		if *ours, theirs[i+1], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	if err := giveOutput(theirs[2:], o.As); err != nil {
		return nil, err
	}
	r.shim = shimCommand(theirs, r.group)
	if err := r.shim.Start(); err != nil {
		return nil, err
	}
	if err := r.sendOrder(o); err != nil {
		// The shim ends when the control pipe does; nothing ran.
		closeAll(r.control)
		_ = r.shim.Wait()
		return nil, err
	}
	return r, nil
}

// giveOutput makes the pipes the identity's own, as a terminal would be: a
// command may open /dev/stdout and /dev/stderr, which asks for permission anew.
func giveOutput(pipes []*os.File, as *credential) error {
	if as == nil {
		return nil
	}
	for _, p := range pipes {
		if err := p.Chown(int(as.UID), int(as.GID)); err != nil {
			return fmt.Errorf("handing over an output pipe: %w", err)
		}
	}
	return nil
}

func shimCommand(theirs [4]*os.File, g *group) *exec.Cmd {
	cmd := &exec.Cmd{
		Path:   "/proc/self/exe", // this very program, even when its file was replaced
		Args:   []string{shimName},
		Env:    []string{},
		Dir:    "/",
		Stdout: theirs[2],
		Stderr: theirs[3],
		// The descriptors controlFD, reportFD, groupFD.
		ExtraFiles:  []*os.File{theirs[0], theirs[1]},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if g != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, g.dir)
	}
	return cmd
}

func (r *running) sendOrder(o order) error {
	order, err := o.encode()
	if err != nil {
		return err
	}
	// Longer than a pipe holds: a shim that does not read must not stop us.
	if err := r.control.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := r.control.Write(order); err != nil {
		return fmt.Errorf("giving the shim its order: %w", err)
	}
	return nil
}

// run sees the job to its end. When it returns, everything of it is gone.
func (r *running) run(ctx context.Context, cancel context.CancelCauseFunc, job Job) Outcome {
	out := startPump("stdout", r.stdout, func() { closeAll(r.stdout) }, job.Stdout, cancel)
	errs := startPump("stderr", r.stderr, func() { closeAll(r.stderr) }, job.Stderr, cancel)
	guarded := make(chan bool)
	go func() { guarded <- r.guard(ctx) }()

	waited := r.shim.Wait()
	close(r.gone)
	wasKilled := <-guarded
	if r.group != nil {
		// Usually gone by now. If the shim was killed, this is what ends the job.
		r.group.remove()
		r.group = nil
	}
	whole := drain(ctx, outsideHold, out, errs)
	result := r.outcome(waited, job)
	r.release()

	if err := writeError(out, errs); err != nil {
		return Outcome{Status: result.Status, Err: err}
	}
	// A killed command need not have died of the signal: it may have exited
	// because its children had.
	if wasKilled || !whole {
		return killed(ctx, result.Status)
	}
	return result
}

// guard kills the job when ctx ends, and reports whether it had to.
func (r *running) guard(ctx context.Context) bool {
	select {
	case <-r.gone:
		return false
	case <-ctx.Done():
	}
	closeAll(r.control) // the shim kills by this
	again := time.NewTicker(insist)
	defer again.Stop()
	for try := 1; ; try++ {
		if r.group != nil {
			_ = r.group.kill() // and this does not depend on the shim
		}
		select {
		case <-r.gone:
			return true
		case <-again.C:
		}
		// Under one user a job may stop its shim.
		_ = r.shim.Process.Signal(unix.SIGCONT)
		if try >= lastTry && r.group != nil && r.group.empty() {
			_ = r.shim.Process.Kill()
		}
	}
}

// outcome is what the shim reported. The shim is gone: the pipe holds a whole
// report or none.
func (r *running) outcome(waited error, job Job) Outcome {
	report, err := io.ReadAll(io.LimitReader(r.report, reportSize+1))
	if err != nil || len(report) != reportSize {
		if waited == nil {
			waited = errors.New("no report")
		}
		return notRun(fmt.Errorf("running %s: the shim was lost: %w", job.Argv[0], waited))
	}
	number := binary.BigEndian.Uint32(report[1:])
	if report[0] == reportSandbox {
		return notRun(fmt.Errorf("%w: %w", ErrSandbox, syscall.Errno(number)))
	}
	if report[0] == reportFailed {
		return notRun(startError(job, syscall.Errno(number)))
	}
	return Outcome{Status: exitStatus(syscall.WaitStatus(number))}
}

func exitStatus(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}

// startError says for a person why the kernel did not start the command.
func startError(job Job, errno syscall.Errno) error {
	name := job.Argv[0]
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return fmt.Errorf("%w: %q, or the interpreter it names", ErrNotFound, name)
	case unix.EACCES, unix.EISDIR, unix.ELOOP:
		return fmt.Errorf("%w: %q, as %s: %w", ErrNotExecutable, name, job.As.Name, errno)
	case unix.ENOEXEC:
		return fmt.Errorf("%w: %q is no program for this machine, nor a script with a #! line", ErrNotExecutable, name)
	}
	return fmt.Errorf("starting %q as %s: %w", name, job.As.Name, errno)
}

// release closes what is still open, and takes the control group away.
func (r *running) release() {
	closeAll(r.control, r.report, r.stdout, r.stderr)
	if r.group != nil {
		r.group.remove()
		r.group = nil
	}
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
