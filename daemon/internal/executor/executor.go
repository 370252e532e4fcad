// Package executor runs the argv (or request) of a call that has already been decided, as
// the issuer, and makes sure that nothing of it outlives the call.
//
// [Exec] runs it on this machine, [SSH] on another by way of OpenSSH's
// protocol. Both promise the same: the words of the argv arrive as they are,
// the environment is a fixed list, standard input is empty, and when the
// context ends, when a writer fails, or when the daemon itself is killed, the
// work dies with it. [HTTP] asks a service instead, with declared values in
// declared places. What each cannot promise is said at its type.
//
// A [Filter] keeps the daemon's own credentials out of what comes back.
//
// It decides nothing: who may run what, with which values and until when, was
// settled before Execute. It knows no verb, no session and no log. It runs on
// Linux only. Only package daemon may import it; os/exec and x/crypto/ssh are
// imported nowhere else.
package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Executor runs jobs. It is safe for concurrent use.
type Executor interface {
	// Execute runs the job and returns when every process of it that the
	// executor can reach is gone and the writers have been written to for the
	// last time. When ctx ends, or a writer returns an error, the work is
	// killed at once, without a first warning signal.
	//
	// A writer that blocks holds the command back, as a pipe would, and never
	// holds back the killing. A writer still stuck in a Write a moment after
	// ctx ended is left behind: that one Write may be going on when Execute
	// returns; no other follows.
	Execute(ctx context.Context, job Job) Outcome
	// Describe says on one line what Execute would do.
	Describe(job Job) string
}

// Identity is an operating-system account, with all that its processes carry.
// Without a Name it is nobody's, and refused.
type Identity struct {
	Name     string
	UID, GID uint32
	Groups   []uint32 // supplementary groups
}

// Job is one command to run.
type Job struct {
	// Argv is passed on word by word; no shell reads it. Argv[0] is an
	// absolute path, or a name to be found in the fixed PATH.
	Argv []string
	// As is the account it runs as on this machine. For ssh it is who the
	// private key file may belong to.
	As Identity
	// Issuer is the name that {issuer} stands for in an ssh target.
	Issuer string
	// Target names the ssh or http target.
	Target string
	// Request takes the place of Argv in an http job.
	Request *Request
	// Sandbox, where it is set, is all that a command on this machine may touch.
	Sandbox *Sandbox
	// Stdin is what a command on this machine reads; a call's is empty.
	Stdin []byte
	// Timeout is the longest the command may take; zero leaves it to ctx.
	Timeout time.Duration
	// Stdout and Stderr take the output, each from one goroutine at a time;
	// nil discards.
	Stdout, Stderr io.Writer
}

// Outcome is how a job ended.
type Outcome struct {
	// Status is the command's own exit status, 128+signal when a signal
	// ended it, and NoStatus when there is none.
	Status int
	// TimedOut says that it was killed because [Job.Timeout] was up.
	TimedOut bool
	// Err says why the command could not be run, or was lost or killed before
	// it had ended by itself. A command that ran and failed is not an Err.
	Err error
}

// NoStatus is the status of a command that never ran or was never heard of again.
const NoStatus = -1

// The refusals that callers tell apart.
var (
	// ErrJob is wrapped by every refusal of the job itself: nothing was tried.
	ErrJob = errors.New("job refused")
	// ErrNotFound and ErrNotExecutable say that the command is not there, or
	// is there and cannot be run by this identity.
	ErrNotFound      = errors.New("command not found")
	ErrNotExecutable = errors.New("command not executable")
)

// errTimeout is the cause of a context that ended by [Job.Timeout].
var errTimeout = errors.New("the job's time is up")

// Bounds of an argv. The kernel takes 128 KiB in one word, which is also the
// most that a whole remote command line may have.
const (
	maxArgs      = 4096
	maxArgvBytes = 96 << 10
	maxStdin     = 64 << 10
)

// notRun is the outcome of a job of which nothing was started.
func notRun(err error) Outcome { return Outcome{Status: NoStatus, Err: err} }

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrJob, fmt.Errorf(format, args...))
}

// check refuses what neither executor can pass on faithfully.
func (j Job) check() error {
	if len(j.Argv) == 0 || j.Argv[0] == "" {
		return refuse("no command")
	}
	// Programs that run programs (setsid, timeout) would take it for an option.
	if strings.HasPrefix(j.Argv[0], "-") {
		return refuse("the command's name starts with a dash")
	}
	if len(j.Argv) > maxArgs {
		return refuse("%d words, %d at most", len(j.Argv), maxArgs)
	}
	total := 0
	for i, word := range j.Argv {
		if strings.IndexByte(word, 0) >= 0 {
			return refuse("word %d has a NUL byte", i)
		}
		total += len(word) + 1
	}
	if total > maxArgvBytes {
		return refuse("%d bytes of words, %d at most", total, maxArgvBytes)
	}
	if len(j.Stdin) > maxStdin {
		return refuse("%d bytes of input, %d at most", len(j.Stdin), maxStdin)
	}
	if j.Timeout < 0 {
		return refuse("a negative timeout")
	}
	return nil
}

// bound derives the context of one job: ended by ctx, by the timeout (with
// errTimeout as cause), or by the returned cancel.
func bound(ctx context.Context, timeout time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if timeout == 0 {
		return ctx, cancel
	}
	ctx, stop := context.WithTimeoutCause(ctx, timeout, errTimeout)
	return ctx, func(cause error) {
		cancel(cause)
		stop()
	}
}

// killed is the outcome of a job that was killed because its context ended.
func killed(ctx context.Context, status int) Outcome {
	cause := context.Cause(ctx)
	if errors.Is(cause, errTimeout) {
		return Outcome{Status: status, TimedOut: true}
	}
	return Outcome{Status: status, Err: fmt.Errorf("killed: %w", cause)}
}
