//go:build !long

package passport

// narrowedPairs is how many pairs of a grant and a narrowing are enumerated.
const narrowedPairs = 50_000
