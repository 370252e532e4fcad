//go:build !long

package audit

const (
	// lineCount is how long the log is that is tampered with at every line: a fifth.
	lineCount = 200
	// truncations is how long the log is that is cut off at every line: a tenth.
	truncations = 100
)
