package executor

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one line of the process tree.
type process struct{ pid, parent, group int }

// killDescendants sends SIGKILL to every process below root, and to their
// process groups: a group is killed in one step, so that none of it can slip
// away by forking. All sessions below root were opened below root, and a group
// lies in one session, so the groups hold nobody else. What leaves its group
// while this runs may not be seen: callers repeat it until nobody is left. It
// enters whom it kills, and returns how many of them are new there: a number
// that is used again while this goes on is killed all the same.
func killDescendants(root int, killed map[int]bool) (fresh int) {
	groups := map[int]bool{0: true, 1: true, unix.Getpgrp(): true}
	for _, p := range descendants(root) {
		if !groups[p.group] {
			groups[p.group] = true
			_ = unix.Kill(-p.group, unix.SIGKILL)
		}
		_ = unix.Kill(p.pid, unix.SIGKILL) // it may have left its group since
		if !killed[p.pid] {
			killed[p.pid] = true
			fresh++
		}
	}
	return fresh
}

// descendants lists the processes below root, parents first, from /proc. The
// dead are among them: a process whose first thread has ended looks dead there
// while its others run.
func descendants(root int) []process {
	children := make(map[int][]process)
	for _, p := range allProcesses() {
		children[p.parent] = append(children[p.parent], p)
	}
	found := children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
		// A recycled number could close a circle in a listing that took time.
		delete(children, found[i].pid)
	}
	return found
}

func allProcesses() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all := make([]process, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // gone
		}
		if p, ok := parseStat(pid, stat); ok {
			all = append(all, p)
		}
	}
	return all
}

// parseStat reads PID/stat: pid (name) state ppid pgrp … The name may hold
// anything, so the fields are counted from the last parenthesis.
func parseStat(pid int, stat []byte) (process, bool) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 3 {
		return process{}, false
	}
	parent, perr := strconv.Atoi(fields[1])
	group, gerr := strconv.Atoi(fields[2])
	return process{pid: pid, parent: parent, group: group}, perr == nil && gerr == nil
}
