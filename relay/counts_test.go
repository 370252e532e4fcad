//go:build !long

package relay

// guesses is how many rendezvous ids are guessed at the registry.
const guesses = 1_000_000
