package daemon

import "openscope/daemon/internal/seam"

// The seam in the core's own words; it is drawn in daemon/internal/seam.
type (
	connID     = seam.ConnID
	authority  = seam.Authority
	attachment = seam.Attachment
	peer       = seam.Peer
	network    = seam.Network
	served     = seam.Served
	endedError = seam.EndedError
)

var _ authority = (*core)(nil)

// errProtocol is why a connection ends that breaks the protocol.
var errProtocol = seam.ErrProtocol
