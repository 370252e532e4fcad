//go:build !long

package executor

const (
	resisting   = 200    // processes of a bomb
	exactWords  = 20_000 // words that must arrive as they are
	quotedWords = 5_000  // words that each shell must read back
)
