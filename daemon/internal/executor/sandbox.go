package executor

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sandbox is what a command may touch, by the kernel's Landlock: nothing else
// of the file system, whatever its identity may do. Where the kernel cannot
// hold a command to it, the command does not run.
//
// Landlock does not see what is open already, nor a connection to a socket that
// has a path in a folder the command can name.
type Sandbox struct {
	// Read are absolute paths of what may be read and executed, Write of what
	// may be changed too; folders with all below them. /dev/null is in both.
	Read, Write []string
	// NoNetwork gives the command a network of its own with nothing in it. That
	// takes a daemon that is root.
	NoNetwork bool
}

// ErrSandbox says that a command was not run because it could not be held.
var ErrSandbox = errors.New("the sandbox cannot be entered")

// Rights that make sense for a file, as opposed to a folder.
const (
	readFile  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	writeFile = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	readAll   = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// everything is what Landlock knew to restrict in its third version (Linux
	// 6.2), the first that holds truncation.
	everything = unix.LANDLOCK_ACCESS_FS_TRUNCATE<<1 - 1
	oldest     = 3
	// bindTCP is the right to listen, nearly: since version 4.
	bindTCP     = unix.LANDLOCK_ACCESS_NET_BIND_TCP
	bindTCPFrom = 4
	// scopes keep a command from signalling, and from abstract sockets of, what
	// is outside; since version 6.
	scopes     = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	scopesFrom = 6
)

// landlockVersion is the kernel's, or an error where it has none.
func landlockVersion() (int, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(version), nil
}

// check refuses, before anything is started, what would not hold.
func (s *Sandbox) check() error {
	version, err := landlockVersion()
	if err != nil {
		return fmt.Errorf("%w: this kernel has no Landlock: %w", ErrSandbox, err)
	}
	if version < oldest {
		return fmt.Errorf("%w: this kernel's Landlock is version %d, and %d is needed", ErrSandbox, version, oldest)
	}
	if s.NoNetwork && os.Geteuid() != 0 {
		return fmt.Errorf("%w: only a daemon that is root can take the network away", ErrSandbox)
	}
	for _, path := range slices.Concat(s.Read, s.Write) {
		if !filepath.IsAbs(path) {
			return refuse("sandbox: %q is not an absolute path", path)
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: %w", ErrSandbox, err)
		}
	}
	return nil
}

// enter holds the calling thread, and all that it starts from now on. It is not
// done by the library for it, which holds the whole process: the shim must stay
// free to end the command.
func (s *Sandbox) enter() error {
	if s == nil {
		return nil
	}
	version, err := landlockVersion()
	if err != nil {
		return err
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: everything}
	if version >= scopesFrom {
		attr.Scoped = scopes
	}
	return holdTo(attr, func(ruleset int) error {
		for _, path := range s.Read {
			if err := allow(ruleset, path, readAll, readFile); err != nil {
				return err
			}
		}
		for _, path := range append([]string{os.DevNull}, s.Write...) {
			if err := allow(ruleset, path, everything, writeFile); err != nil {
				return err
			}
		}
		return nil
	})
}

// holdThread holds the calling thread, and what it starts, to reading and to
// this program; it listens on no port. Where the kernel has no Landlock it holds
// nothing.
func holdThread(read []string) error {
	version := LandlockVersion()
	if version == 0 {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: everything}
	if version >= bindTCPFrom {
		attr.Handled_access_net = bindTCP
	}
	if version >= scopesFrom {
		attr.Scoped = scopes
	}
	return holdTo(attr, func(ruleset int) error {
		if err := allow(ruleset, "/proc/self/exe", readFile, readFile); err != nil {
			return err
		}
		for _, path := range read {
			const file, folder = unix.LANDLOCK_ACCESS_FS_READ_FILE, unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
			if err := allow(ruleset, path, folder, file); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		for _, path := range interpreters() {
			if err := allow(ruleset, path, readAll, readFile); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		return nil
	})
}

// interpreters is what this program needs to be started: nothing, as it ships;
// the system's libraries where it was linked to some.
func interpreters() []string {
	program, err := elf.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"}
		}
	}
	return nil
}

// holdTo makes a ruleset, has it filled, and enters it.
func holdTo(attr unix.LandlockRulesetAttr, fill func(ruleset int) error) error {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return errno
	}
	ruleset := int(fd)
	defer func() { _ = unix.Close(ruleset) }()
	if err := fill(ruleset); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// allow adds a rule: one set of rights for a folder, another for a file.
func allow(ruleset int, path string, folder, file uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: folder, Parent_fd: int32(fd)}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rule.Allowed_access = file
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
