// Package network is the half of the daemon that strangers can reach: the relay
// connections, the handshake, the records. It holds the sessions' derived keys
// and nothing that outlives them, and asks the core, across the seam, for
// everything that takes authority.
//
// It is not believed: whatever it says, the core verifies again. The daemon runs
// it in a process of its own that may do little else. Only daemon may import it,
// and it alone of the daemon's packages imports wire/tunnel.
package network
