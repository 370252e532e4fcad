//go:build !long

package daemon

const floodBytes uint64 = 256 << 20
