//go:build !long

package daemon

const (
	floodBytes uint64 = 256 << 20
	// clockSchedules is how often clocks are bent under a session.
	clockSchedules = 100
	// childEdits is how often grants are edited under an agent's passport.
	childEdits = 1_000
)
