//go:build !linux

package term

// keepMemory is for Linux: elsewhere the system's own settings hold.
func keepMemory() {}
