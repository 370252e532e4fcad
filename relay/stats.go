package relay

import (
	"crypto/tls"
	"sync/atomic"
	"time"
)

// Stats is what a relay has counted, and what stands now. It names nobody: no
// rendezvous id, no address.
type Stats struct {
	Connections, Handshaking, Addresses   int // now
	Daemons, Sessions, Legs               int // now
	Accepted, AcceptedTCP                 uint64
	Registered, Joined                    uint64
	BytesUp, BytesDown                    uint64
	RefusedCrowd, RefusedToken            uint64 // before the handshake; at hello
	RefusedJoin, RefusedDraining, Retried uint64
	RefusedSession, EndedRevoked, Stalled uint64
	Shed                                  uint64 // legs ended for memory's sake
	Draining                              bool
	CertificateEnds                       time.Time
}

// counters is the part that only grows.
type counters struct {
	accepted, acceptedTCP, registered, joined                              atomic.Uint64
	up, down                                                               atomic.Uint64
	crowd, token, join, draining, retried, session, revoked, stalled, shed atomic.Uint64
}

// Stats may be asked at any time.
func (r *Relay) Stats() Stats {
	s := Stats{
		Accepted: r.counters.accepted.Load(), AcceptedTCP: r.counters.acceptedTCP.Load(), Registered: r.counters.registered.Load(), Joined: r.counters.joined.Load(),
		BytesUp: r.counters.up.Load(), BytesDown: r.counters.down.Load(),
		RefusedCrowd: r.counters.crowd.Load(), RefusedToken: r.counters.token.Load(), RefusedJoin: r.counters.join.Load(),
		RefusedDraining: r.counters.draining.Load(), Retried: r.counters.retried.Load(),
		RefusedSession: r.counters.session.Load(), EndedRevoked: r.counters.revoked.Load(), Stalled: r.counters.stalled.Load(),
		Shed: r.counters.shed.Load(),
	}
	if shown, err := r.cfg.Certificate(&tls.ClientHelloInfo{}); err == nil && shown.Leaf != nil {
		s.CertificateEnds = shown.Leaf.NotAfter
	}
	s.Connections, s.Handshaking, s.Addresses = r.door.counts()
	s.Daemons, s.Sessions, s.Legs, s.Draining = r.registry.counts()
	return s
}
