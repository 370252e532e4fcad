//go:build long

package daemon

const floodBytes uint64 = 10 << 30
