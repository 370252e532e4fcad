//go:build !long

package bench

const (
	// agreements is how many handshakes both implementations must agree on.
	agreements = 1_000
	// hpkeRounds is how many contexts circl and Go must agree on, each way and for
	// each KEM.
	hpkeRounds = 500
)
