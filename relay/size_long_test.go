//go:build long

package relay_test

import "time"

const (
	floodTime    = 15 * time.Second
	idleSessions = 5000
	idleTime     = 10 * time.Minute
	socketJoins  = 10_000
	restarts     = 200
	fullLoad     = true
	keeps        = 0.9
)
