//go:build long

package bench

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootScript is the first thing in a new system's namespaces: it puts the
// system's root folder together from the tree, which stays as it is, and becomes
// systemd. $1 is the tree, $2 a folder to mount things on.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
hostname "$3"
pivot_root . old
umount -l /old
rmdir /old
exec env -i container=openscope PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
`

// treePackages are what the systems have beside a minimal Debian.
const treePackages = "systemd,systemd-sysv,dbus,iproute2,procps"

// treeAge is how old a system may be that an earlier run has packed: to make one
// takes minutes, and it is as new as the machine's own packages all the same.
const treeAge = 24 * time.Hour

// tree is a Debian system made from the machine's own package sources.
func tree(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("there is no mmdebstrap here: ", err)
	}
	packed := packedTree(t)
	dir := protectedDir(t)
	if out, err := exec.Command("tar", "-x", "-f", packed, "-C", dir, "--exclude=./dev/*").CombinedOutput(); err != nil {
		t.Fatalf("unpacking: %v\n%s", err, out)
	}
	return dir
}

// packedTree is the system in one file, which stays for runs that come soon.
func packedTree(t *testing.T) string {
	t.Helper()
	release, err := exec.Command("sh", "-c", ". /etc/os-release && [ $ID = debian ] && echo $VERSION_CODENAME").Output()
	if err != nil {
		t.Skip("this machine's package sources are not Debian's")
	}
	suite := strings.TrimSpace(string(release))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "openscope-bench")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(dir, suite+"-"+strings.ReplaceAll(treePackages, ",", "-")+".tar")
	if info, err := os.Stat(packed); err == nil && time.Since(info.ModTime()) < treeAge {
		return packed
	}
	sources, _ := filepath.Glob("/etc/apt/sources.list.d/debian.sources")
	made := filepath.Join(t.TempDir(), "tree.tar")
	args := append([]string{"--variant=minbase", "--include=" + treePackages, suite, made}, sources...)
	if out, err := exec.Command("mmdebstrap", args...).CombinedOutput(); err != nil {
		t.Skipf("no Debian system can be made here: %v\n%s", err, out)
	}
	whole := packed + fmt.Sprint(".", os.Getpid())
	if out, err := exec.Command("sh", "-c", `cp "$1" "$2" && mv "$2" "$3"`, "sh", made, whole, packed).CombinedOutput(); err != nil {
		t.Fatalf("keeping the system: %v\n%s", err, out)
	}
	return packed
}

// bootPatience is how long a system may take to its first process, and again
// until it is up: a machine that has other work makes namespaces slowly.
const bootPatience = 3 * time.Minute

// boot starts a system from the tree, with a name, and waits until it is up.
func boot(t *testing.T, tree, name string) *machine {
	t.Helper()
	group := newGroup(t, name)
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// The shell ends it all when its input does, which is with this test.
	cmd := exec.Command("sh", "-c", `unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child -- sh -c "$0" sh "$@" </dev/null & echo $!; read -r _; kill -KILL $!; wait $!`,
		bootScript, tree, t.TempDir(), name)
	var problem, started lockedBuffer
	cmd.Stdout, cmd.Stderr = &started, &problem
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("there are no namespaces to be had here: ", err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		endGroup(group) // before the wait: whatever holds its output must end
		_ = cmd.Wait()
		endGroup(group)
	})
	m := &machine{t: t, name: name, own: true}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said at its start:\n%s\n%s", name, problem.String(), runningIn(group))
		}
	})
	until(t, bootPatience, name+" has a first process", func() bool {
		unshare := strings.TrimSpace(started.String())
		if unshare == "" {
			return false
		}
		text, err := os.ReadFile("/proc/" + unshare + "/task/" + unshare + "/children")
		if state, _ := os.ReadFile("/proc/" + unshare + "/stat"); err != nil || strings.Contains(string(state), ") Z ") {
			t.Fatalf("%s has ended before it began: %v", name, err)
		}
		_, scanned := fmt.Sscan(string(text), &m.init)
		return scanned == nil
	})
	until(t, bootPatience, name+" has booted", func() bool {
		out, _ := m.try("", "systemctl", "is-system-running")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.try("", "journalctl", "-o", "cat", "-n", "60", "-u", "openscope*")
			t.Logf("the journal of %s:\n%s", name, out)
		}
	})
	return m
}

// groupPrefix begins the names of the systems' control groups; the process id of
// the test that made them is next.
const groupPrefix = "openscope-test-"

// newGroup is a control group of this run's own: another run beside it would end
// its system with the group. What runs left that were killed goes first.
func newGroup(t *testing.T, name string) string {
	t.Helper()
	root := unifiedGroups(t)
	left, _ := filepath.Glob(filepath.Join(root, groupPrefix+"*"))
	for _, group := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(group), groupPrefix), "-")
		if _, err := os.Stat("/proc/" + owner); err != nil {
			endGroup(group)
		}
	}
	group := filepath.Join(root, fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), name))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skip("there are no control groups to be had here: ", err)
	}
	return group
}

// endGroup kills what runs in a control group, and removes it.
func endGroup(group string) {
	_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
	for range 100 { // who was killed may take a moment to be gone
		if exec.Command("find", group, "-depth", "-type", "d", "-delete").Run() == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// runningIn says what runs in a control group, and what it waits for.
func runningIn(group string) string {
	var all strings.Builder
	_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(text)) {
			command, _ := os.ReadFile("/proc/" + pid + "/comm")
			state, _ := os.ReadFile("/proc/" + pid + "/wchan")
			fmt.Fprintf(&all, "%s %s in %s\n", pid, bytes.TrimSpace(command), state)
		}
		return nil
	})
	return all.String()
}

// unifiedGroups is where control groups of version 2 are mounted.
func unifiedGroups(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			return fields[4]
		}
	}
	t.Skip("control groups of version 2 are not mounted here")
	return ""
}
