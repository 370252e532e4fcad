package executor

import "golang.org/x/sys/unix"

const (
	auditArch uint32 = unix.AUDIT_ARCH_X86_64
	// otherABI is where the numbers of another way to call the kernel begin.
	otherABI = 0x40000000
)

// forks are how a process is made here beside clone.
var forks = []uint32{unix.SYS_FORK, unix.SYS_VFORK}
