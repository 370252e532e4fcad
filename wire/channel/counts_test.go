//go:build !long

package channel

// instrumentedRecords is how many records are sealed with their nonces watched.
const instrumentedRecords = 100_000
