package term

import "syscall"

const prSetDumpable = 4

// keepMemory keeps what this process holds (handles, tokens, keys) out of core
// files, and from other processes of the same user: a process that is not
// dumpable leaves no core, not even to a program that the kernel hands them to,
// which a limit of zero does not keep from it. What it starts may be dumped again.
func keepMemory() {
	// Neither has a way to fail that could be mended here.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
