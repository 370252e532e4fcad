package relay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go/quicvarint"
)

// A newcomer who comes while no turn is to be had would be answered twice: asked
// for its address, and then refused. Each answer costs keys that are derived for
// it, and a flood of newcomers is a flood of answers. So their packets are dropped
// where they come out of the socket, by the first bytes, and nothing is answered:
// an honest client says it again, and is heard when there is a turn.
//
// Who has yet to prove its address can have forged it, and so takes no turn, and
// keeps nobody from one. Only while much is forwarded there are so few turns that
// most who are asked would find none: then few are asked, [asksPerTurn], and a flood
// of forged addresses can keep newcomers out over QUIC. TCP proves addresses before
// a relay hears of them.

const (
	longHeader    = 0x80 // RFC 9000, section 17.2
	packetType    = 0x30
	typeHandshake = 0x20
	versionOne    = 1
)

// mayBegin reports whether a datagram could be a connection's first: all that have
// a long header, but those that nothing answers unless their connection is known.
func mayBegin(datagram []byte) bool {
	if len(datagram) == 0 || datagram[0]&longHeader == 0 {
		return false
	}
	if len(datagram) < 5 {
		return true
	}
	return datagram[0]&packetType != typeHandshake || binary.BigEndian.Uint32(datagram[1:]) != versionOne
}

// showsToken reports whether a datagram that may begin a connection shows some
// token, as those do that were asked to prove their address (Retry). Whether it is
// a good one is found out later.
func showsToken(datagram []byte) bool {
	if len(datagram) < 5 {
		return false
	}
	rest := datagram[5:]
	for range 2 { // the two connection ids
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return false
		}
		rest = rest[1+int(rest[0]):]
	}
	length, _, err := quicvarint.Parse(rest)
	return err == nil && length > 0
}

// keep is asked about every datagram that comes (tunnel.Keep).
func (r *Relay) keep(from netip.AddrPort, datagram []byte) bool {
	if !mayBegin(datagram) || r.door.expects(from, showsToken(datagram), time.Now()) {
		return true
	}
	r.counters.crowd.Add(1)
	return false
}
