//go:build long

package audit

const (
	lineCount   = 1_000
	truncations = 1_000
)
