package wire

import (
	"encoding/binary"
	"fmt"
)

// Unregister takes a session off the relay.
//
//	rid 16
type Unregister struct{ RID RendezvousID }

// Append appends the framed message.
func (u Unregister) Append(dst []byte) []byte { return AppendMessage(dst, TypeUnregister, u.RID[:]) }

// ParseUnregister reads the body.
func ParseUnregister(body []byte) (Unregister, error) {
	if err := sized("an unregistration", body, 16); err != nil {
		return Unregister{}, err
	}
	return Unregister{RID: RendezvousID(body)}, nil
}

// Kept tells the relay that a leg has finished its handshake: later joins will
// not displace it.
//
//	rid 16 | leg 8
type Kept struct {
	RID RendezvousID
	Leg uint64
}

// Append appends the framed message.
func (k Kept) Append(dst []byte) []byte {
	return AppendMessage(dst, TypeKept, binary.BigEndian.AppendUint64(append([]byte(nil), k.RID[:]...), k.Leg))
}

// ParseKept reads the body.
func ParseKept(body []byte) (Kept, error) {
	if err := sized("a kept", body, 24); err != nil {
		return Kept{}, err
	}
	return Kept{RID: RendezvousID(body[:16]), Leg: binary.BigEndian.Uint64(body[16:])}, nil
}

// AppendHeartbeat appends a heartbeat: nothing but its size matters.
func AppendHeartbeat(dst []byte) []byte {
	return AppendMessage(dst, TypeHeartbeat, make([]byte, HeartbeatSize))
}

// Preface is the first thing on every leg's stream towards the daemon, written
// by the relay: whose leg it is.
//
//	version 1 | rid 16 | leg 8 | length 1 | from
type Preface struct {
	RID RendezvousID
	// Leg numbers the leg on this relay, for Kept.
	Leg uint64
	// From is the client's address as the relay saw it: hearsay, and may be
	// empty.
	From string
}

// Append appends the framed message.
func (p Preface) Append(dst []byte) []byte {
	body := append([]byte{RelayVersion}, p.RID[:]...)
	body = binary.BigEndian.AppendUint64(body, p.Leg)
	from := p.From[:min(len(p.From), MaxFrom)]
	return AppendMessage(dst, TypePreface, append(append(body, byte(len(from))), from...))
}

// ParsePreface reads the body. Whatever is not printable ASCII in the address
// is refused: it will be shown to people.
func ParsePreface(body []byte) (Preface, error) {
	const fixed = 1 + 16 + 8 + 1
	if len(body) < fixed || body[0] != RelayVersion {
		return Preface{}, fmt.Errorf("%w: a preface of %d bytes", ErrMessage, len(body))
	}
	from := body[fixed:]
	if int(body[fixed-1]) != len(from) || len(from) > MaxFrom {
		return Preface{}, fmt.Errorf("%w: an address of %d bytes in a preface", ErrMessage, len(from))
	}
	for _, b := range from {
		if b < 0x20 || b > 0x7e {
			return Preface{}, fmt.Errorf("%w: an unprintable address in a preface", ErrMessage)
		}
	}
	return Preface{RID: RendezvousID(body[1:17]), Leg: binary.BigEndian.Uint64(body[17:25]), From: string(from)}, nil
}
