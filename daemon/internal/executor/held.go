package executor

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Held is what holds a process that called [HoldSelf].
type Held struct {
	NoNewPrivileges bool
	Landlock        int // the kernel's version; 0 is none
	Syscalls        bool
}

// How many descriptors a child may have open, and how large a file may grow that
// it writes: it writes none.
const (
	childFiles    = 256
	childFileSize = 0
)

// HoldSelf is the first thing that a child does: it lowers its limits, keeps its
// memory to itself, and gives up the system calls that it has no use for, which
// only then it has no use for. It says what holds it.
func HoldSelf() (Held, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Held{}, fmt.Errorf("keeping the memory: %w", err)
	}
	for resource, most := range map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: childFileSize, unix.RLIMIT_NOFILE: childFiles,
	} {
		if err := limit(resource, most, most); err != nil {
			return Held{}, err
		}
	}
	gained, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil || gained != 1 {
		return Held{}, fmt.Errorf("this process could gain privileges: %d, %w", gained, err)
	}
	return Held{NoNewPrivileges: true, Landlock: LandlockVersion(), Syscalls: refuseSyscalls() == nil}, nil
}

// refusal is an error number that the kernel answers a system call with.
func refusal(errno syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// Offsets into the kernel's struct seccomp_data.
const (
	dataNumber   = 0
	dataArch     = 4
	dataArgument = 16 // the first one's low half, on machines that begin with it
)

// refuseSyscalls has all threads of this process refused what a process needs to
// start another, to look into one, to be connected to, or to reach a socket that
// has a path, as the control socket has. It is a second wall: the first is that of
// another user and Landlock.
func refuseSyscalls() error {
	if auditArch == 0 {
		return unix.ENOSYS
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// skip goes on behind the next instruction unless the value is this one.
	skipUnless := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	no, unknown, yes := answer(refusal(unix.EPERM)), answer(refusal(unix.ENOSYS)), answer(unix.SECCOMP_RET_ALLOW)

	filter := []unix.SockFilter{
		load(dataArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1}, no,
		load(dataNumber),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: otherABI, Jf: 1}, no,
		skipUnless(unix.SYS_CLONE3), unknown, // whoever asks falls back to clone
	}
	for _, number := range useless {
		filter = append(filter, skipUnless(number), no)
	}
	filter = append(filter,
		// A thread, and not a process.
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 4},
		load(dataArgument),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jf: 1}, yes, no,
		// A socket of the network.
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 8},
		load(dataArgument),
		skipUnless(unix.AF_INET), yes, skipUnless(unix.AF_INET6), yes, skipUnless(unix.AF_NETLINK), yes, no,
		yes)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
