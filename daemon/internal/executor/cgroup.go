package executor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// groups makes one control group (cgroup v2) per call, below a parent that is
// this process's own: PARENT/openscope-PID/call-RANDOM. Killing a group takes
// in every process born in it, wherever it has moved in the process tree, and
// in one step: a fork cannot slip through. No controller is enabled.
type groups struct {
	parent string     // may be missing while no call runs
	mu     sync.Mutex // making and removing parent
}

// findGroups returns where call groups can be made, or why they cannot be.
func findGroups() (*groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding cgroup v2: %w", err)
	}
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("finding cgroup v2: %w", err)
	}
	own, err := ownGroup(mounts, membership)
	if err != nil {
		return nil, fmt.Errorf("finding cgroup v2: %w", err)
	}
	// A process may be put into a group only by who may write to the file of
	// the nearest group above both it and the target: here, our own.
	if err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(own, "cgroup.procs"), unix.W_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("%s is not ours to divide: %w", own, err)
	}
	g := &groups{parent: filepath.Join(own, "openscope-"+strconv.Itoa(os.Getpid()))}
	return g, g.try()
}

// ownGroup is the folder of the control group this process is in, from the
// texts of /proc/self/mountinfo and /proc/self/cgroup. The unified hierarchy
// may be mounted anywhere, alone or beside those of version 1.
func ownGroup(mountinfo, membership []byte) (string, error) {
	path := ""
	for line := range strings.Lines(string(membership)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSuffix(rest, "\n")
		}
	}
	if path == "" {
		return "", errors.New("this process is in no group of version 2")
	}
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		// id parent major:minor root mountpoint options [tags] - type source …
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		below, err := filepath.Rel(unescape(fields[3]), path)
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			continue
		}
		return filepath.Join(unescape(fields[4]), below), nil
	}
	return "", errors.New("not mounted")
}

// unescape undoes the octal escapes of mountinfo: space, tab, newline, backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// try makes one group to see that it can be killed and have processes.
func (g *groups) try() error {
	c, err := g.open()
	if err != nil {
		return err
	}
	defer c.remove()
	kind, err := os.ReadFile(filepath.Join(c.path, "cgroup.type"))
	if err != nil {
		return fmt.Errorf("trying a control group: %w", err)
	}
	if k := strings.TrimSpace(string(kind)); k != "domain" {
		return fmt.Errorf("trying a control group: its type is %q", k)
	}
	// Linux 5.14 brought cgroup.kill; before that a group is no help.
	return c.kill()
}

// open makes a group for one call.
func (g *groups) open() (*group, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Another Exec of this process may remove the parent between the two steps.
	for attempt := 0; ; attempt++ {
		if err := os.Mkdir(g.parent, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making a control group: %w", err)
		}
		path, err := os.MkdirTemp(g.parent, "call-")
		if errors.Is(err, fs.ErrNotExist) && attempt < 10 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("making a control group: %w", err)
		}
		dir, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("making a control group: %w", err)
		}
		return &group{groups: g, path: path, dir: dir}, nil
	}
}

// group is the control group of one call.
type group struct {
	groups *groups
	path   string
	dir    *os.File
}

// kill sends SIGKILL to every process in the group. Killing none is no error.
func (c *group) kill() error {
	return killGroup(c.path)
}

// empty reports whether no living process is in the group.
func (c *group) empty() bool { return groupEmpty(c.path) }

// remove kills what is left, waits for its end, and takes the group away.
func (c *group) remove() {
	_ = c.dir.Close()
	removeGroup(c.path)
	c.groups.mu.Lock()
	defer c.groups.mu.Unlock()
	// Refused while other calls run; the last one succeeds.
	_ = unix.Rmdir(c.groups.parent)
}

func groupEmpty(path string) bool {
	events, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	return err != nil || bytes.Contains(events, []byte("populated 0"))
}

func killGroup(path string) error {
	f, err := os.OpenFile(filepath.Join(path, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("killing a control group: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString("1"); err != nil {
		return fmt.Errorf("killing a control group: %w", err)
	}
	return nil
}

// removeGroup returns when the group is gone, which is when its last process
// is. A process that the kernel does not let die keeps it waiting: the call
// is not over before.
func removeGroup(path string) {
	pause := time.Millisecond
	for {
		err := unix.Rmdir(path)
		if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR) {
			return
		}
		_ = killGroup(path)
		removeBelow(path)
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// removeBelow takes away groups that a privileged job made inside its own.
func removeBelow(path string) {
	var below []string
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && p != path {
			below = append(below, p)
		}
		return nil
	})
	for _, p := range slices.Backward(below) {
		_ = unix.Rmdir(p)
	}
}
