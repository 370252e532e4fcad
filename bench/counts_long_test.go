//go:build long

package bench

const (
	agreements = 1_000_000
	hpkeRounds = 10_000
)
