package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultPath is where commands are looked for, and the PATH they get.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ExecConfig says how commands run on this machine. The zero value is complete.
type ExecConfig struct {
	// Path replaces DefaultPath; absolute folders, separated by colons.
	Path string
	// Home returns the home folder of a user; nil asks the user database. What
	// is not an existing absolute folder becomes "/".
	Home func(uid uint32) string
	// WithoutGroups never makes control groups, for a system on which another
	// program wants the tree to itself.
	WithoutGroups bool
}

// Exec runs commands on this machine, as the issuer: uid, gid, supplementary
// groups, no new privileges, an environment of five variables, empty standard
// input, working folder /, umask 077, no further descriptors.
//
// A daemon that is not root runs commands only as its own user, with that
// process's own supplementary groups, and under one user nothing protects the
// daemon from the command: the promise that nothing outlives a killed daemon
// then holds against accidents, not against a command written to break it. The
// same goes for where there is no control group and a process forks into new
// sessions faster than the process tree can be read.
//
// A program outside the job that does work on its behalf (a service manager, a
// container engine, cron) is not part of the job, and not ended with it.
type Exec struct {
	path   string
	home   func(uid uint32) string
	groups *groups // nil: none to be had
	why    error   // why groups is nil
}

// NewExec finds out how jobs can be contained. It starts no process.
func NewExec(cfg ExecConfig) (*Exec, error) {
	e := &Exec{path: cfg.Path, home: cfg.Home}
	if e.path == "" {
		e.path = DefaultPath
	}
	for dir := range strings.SplitSeq(e.path, ":") {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("configuring exec: the path has %q, which is not absolute", dir)
		}
	}
	if e.home == nil {
		e.home = homeOf
	}
	if cfg.WithoutGroups {
		e.why = errors.New("switched off")
		return e, nil
	}
	e.groups, e.why = findGroups()
	if e.why != nil {
		e.groups = nil
	}
	return e, nil
}

// Containment says, for a person, what holds the processes of a job together.
func (e *Exec) Containment() string {
	if e.groups == nil {
		return "process tree (no control group: " + e.why.Error() + ")"
	}
	return "control group below " + e.groups.parent
}

// Describe says who would run what. Job.As needs no more than its name.
func (e *Exec) Describe(job Job) string {
	return "on this machine as " + job.As.Name + ": " + Quote(job.Argv)
}

// Execute implements [Executor].
func (e *Exec) Execute(ctx context.Context, job Job) Outcome {
	o, err := e.order(job)
	if err != nil {
		return notRun(err)
	}
	ctx, cancel := bound(ctx, job.Timeout)
	defer cancel(nil)
	if ctx.Err() != nil {
		return killed(ctx, NoStatus)
	}
	p, err := e.start(o, job)
	if err != nil {
		return notRun(fmt.Errorf("starting %s: %w", job.Argv[0], err))
	}
	return p.run(ctx, cancel, job)
}

// order is the job as the shim is told it.
func (e *Exec) order(job Job) (order, error) {
	if err := job.check(); err != nil {
		return order{}, err
	}
	as, err := asCredential(job.As)
	if err != nil {
		return order{}, err
	}
	path, err := lookUp(job.Argv[0], e.path)
	if err != nil {
		return order{}, err
	}
	if job.Sandbox != nil {
		if err := job.Sandbox.check(); err != nil {
			return order{}, err
		}
	}
	return order{
		Sandbox: job.Sandbox,
		Path:    []byte(path),
		Argv:    toBytes(job.Argv),
		Env:     toBytes(e.environment(job.As)),
		As:      as,
		Stdin:   job.Stdin,
	}, nil
}

// environment is all a command is told; nothing is inherited.
func (e *Exec) environment(as Identity) []string {
	home := e.home(as.UID)
	if st, err := os.Stat(home); !filepath.IsAbs(home) || err != nil || !st.IsDir() {
		home = "/"
	}
	return []string{
		"PATH=" + e.path,
		"LANG=C.UTF-8",
		"HOME=" + home,
		"USER=" + as.Name,
		"LOGNAME=" + as.Name,
	}
}

// asCredential is how the shim becomes the identity; nil when it is already.
func asCredential(as Identity) (*credential, error) {
	if as.Name == "" || strings.IndexByte(as.Name, 0) >= 0 {
		return nil, refuse("no identity to run as")
	}
	if os.Geteuid() == 0 {
		return &credential{UID: as.UID, GID: as.GID, Groups: as.Groups}, nil
	}
	if int(as.UID) != os.Geteuid() || int(as.GID) != os.Getegid() {
		return nil, refuse("the daemon is not root, and cannot run commands as %s", as.Name)
	}
	return nil, nil
}

// lookUp finds a command. Whether the identity may run it is for the kernel to
// say, when it does.
func lookUp(name, path string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.Contains(name, "/") {
		return "", refuse("%q is neither an absolute path nor a plain name", name)
	}
	found := error(ErrNotFound)
	for dir := range strings.SplitSeq(path, ":") {
		candidate := filepath.Join(dir, name)
		st, err := os.Stat(candidate)
		if err != nil || st.IsDir() {
			continue
		}
		if st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return candidate, nil
		}
		found = ErrNotExecutable
	}
	return "", fmt.Errorf("%w: %q, looked for in %s", found, name, path)
}

func homeOf(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.HomeDir
}

func toBytes(words []string) [][]byte {
	out := make([][]byte, len(words))
	for i, w := range words {
		out[i] = []byte(w)
	}
	return out
}
