package wire

import "time"

// Limits that both sides of a relay connection keep (§3).
const (
	// MaxRelayMessage bounds every message to or from a relay, its three bytes
	// of head included: nothing larger is ever read before a peer is known.
	MaxRelayMessage = 256
	// LegsPerSession is how many legs stand on one rendezvous id.
	LegsPerSession = 8
	// KeptPerSession is how many of them the daemon may mark as kept.
	KeptPerSession = 4
	// MaxAddress bounds a host:port.
	MaxAddress = 100
	// MaxFrom bounds the client's address in a preface.
	MaxFrom = 64
	// FirstBytes is how long a peer has to say what it is.
	FirstBytes = 5 * time.Second
	// HeartbeatBusy and HeartbeatIdle are the daemon's rhythm with and without
	// sessions. HeartbeatSize keeps a heartbeat's packet large enough to draw a
	// stateless reset from a relay that has been restarted.
	HeartbeatBusy = 2 * time.Second
	HeartbeatIdle = 15 * time.Second
	HeartbeatSize = 48
	// RelayIdle is the silence after which either side gives a connection up.
	RelayIdle = 45 * time.Second
)

// ALPN is the protocol a relay speaks, and ExporterLabel what the proofs are
// bound to the connection with.
const (
	ALPN          = "openscope-relay/1"
	ExporterLabel = "EXPORTER-openscope-relay-1"
)

// RelayVersion is the version byte of hello, join and preface.
const RelayVersion = 1
