//go:build long

package relay

const guesses = 10_000_000
