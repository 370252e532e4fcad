//go:build !long

package bench

// agreements is how many handshakes both implementations must agree on.
const agreements = 1_000
