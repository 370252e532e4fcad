//go:build !long

package relay_test

import "time"

// Sizes of the load tests; the long ones are full.
const (
	floodTime    = time.Second
	idleSessions = 100 // sessions that stand and say nothing
	idleTime     = 2 * time.Second
	socketJoins  = 100 // joins with a rendezvous id that was guessed
	restarts     = 5   // of a relay under its sessions
	// fullLoad says that nothing else runs on the machine, and that there are
	// enough sessions to divide by: only then are round trips, and memory and CPU for each
	// session, judged. Short runs print them.
	fullLoad = false
	// keeps is the part of its pace that a session keeps in a flood. Beside the
	// tests of other packages, and with the race detector, no figure holds: what is
	// left shows that the session was not stopped.
	keeps = 0.02
)
