//go:build long

package executor

const (
	resisting   = 1000 // processes of a bomb
	exactWords  = 200_000
	quotedWords = 100_000
)
