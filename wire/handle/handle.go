package handle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"openscope/wire"
)

// ErrHandle is wrapped by every refusal of a handle.
var ErrHandle = errors.New("not a valid handle")

// Limits of a handle.
const (
	MaxText   = 1024
	MaxRelays = 3
	version   = 1
)

const (
	sealedPrefix = "osh1s"
	bearerPrefix = "osh1b"
	flagSealed   = 0
	flagBearer   = 1
	secretSize   = 32
	boxSize      = secretSize + 16
)

// Handle is where a session is, who answers there, and the secret that opens
// it: sealed to one recipient, or in the open for a bearer.
type Handle struct {
	Sealed      bool
	RID         wire.RendezvousID
	Fingerprint [32]byte
	// HardLimit is opening plus cap, in whole seconds: not the TTL, which may
	// be extended.
	HardLimit time.Time
	Relays    []wire.Relay // 1 to 3
	Enc       [32]byte     // sealed
	Box       [boxSize]byte
	Secret    wire.Secret // S, bearer
}

// Header is everything before the secret; the seal is bound to it.
//
//	version 1 | flags 1 | rid 16 | fingerprint 32 | hard limit 4 | n 1 | n × (length 1 | host:port | pin flag 1 [| pin 32])
func (h Handle) Header() []byte {
	flags := byte(flagSealed)
	if !h.Sealed {
		flags = flagBearer
	}
	b := append([]byte{version, flags}, h.RID[:]...)
	b = append(b, h.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(h.HardLimit.Unix()))
	b = append(b, byte(len(h.Relays)))
	for _, r := range h.Relays {
		b = append(append(b, byte(len(r.Address))), r.Address...)
		if r.Pin == nil {
			b = append(b, 0)
			continue
		}
		b = append(append(b, 1), r.Pin[:]...)
	}
	return b
}

// Text is the handle as it is pasted.
func (h Handle) Text() string {
	if h.Sealed {
		return wire.EncodeText(sealedPrefix, append(append(h.Header(), h.Enc[:]...), h.Box[:]...))
	}
	return wire.EncodeText(bearerPrefix, append(h.Header(), h.Secret.Reveal()...))
}

// Hash is hh of §5: the whole handle, bound into every handshake with it.
func (h Handle) Hash() [32]byte {
	if h.Sealed {
		return wire.Hash("handle", h.Header(), h.Enc[:], h.Box[:])
	}
	return wire.Hash("handle", h.Header(), h.Secret.Reveal())
}

// Parse reads a handle that a person pasted. What it returns encodes back to
// the same text.
func Parse(text string) (Handle, error) {
	sealed, prefix := true, sealedPrefix
	if strings.HasPrefix(strings.ToLower(strings.Trim(strings.TrimSpace(text), `"'`)), bearerPrefix) {
		sealed, prefix = false, bearerPrefix
	}
	payload, err := wire.DecodeText(prefix, text, MaxText)
	if err != nil {
		return Handle{}, fmt.Errorf("%w: %w", ErrHandle, err)
	}
	h, err := parsePayload(sealed, payload)
	if err != nil {
		return Handle{}, fmt.Errorf("%w: %w", ErrHandle, err)
	}
	return h, nil
}

var errShort = errors.New("it is cut short")

func parsePayload(sealed bool, b []byte) (Handle, error) {
	const fixed = 2 + 16 + 32 + 4 + 1
	if len(b) < fixed {
		return Handle{}, errShort
	}
	h := Handle{Sealed: sealed, RID: wire.RendezvousID(b[2:18]), Fingerprint: [32]byte(b[18:50])}
	if b[0] != version {
		return Handle{}, fmt.Errorf("version %d is not known here", b[0])
	}
	if sealed != (b[1] == flagSealed) || b[1] > flagBearer {
		return Handle{}, errors.New("its flags do not fit its prefix")
	}
	h.HardLimit = time.Unix(int64(binary.BigEndian.Uint32(b[50:])), 0).UTC()
	n := int(b[fixed-1])
	if n < 1 || n > MaxRelays {
		return Handle{}, fmt.Errorf("it names %d relays", n)
	}
	rest := b[fixed:]
	for range n {
		relay, after, err := parseRelay(rest)
		if err != nil {
			return Handle{}, err
		}
		h.Relays, rest = append(h.Relays, relay), after
	}
	return h, h.parseSecret(rest)
}

func (h *Handle) parseSecret(rest []byte) error {
	want := secretSize
	if h.Sealed {
		want = len(h.Enc) + len(h.Box)
	}
	if len(rest) != want {
		return errShort
	}
	if h.Sealed {
		copy(h.Enc[:], rest)
		copy(h.Box[:], rest[len(h.Enc):])
		return nil
	}
	h.Secret = wire.SecretOf([secretSize]byte(rest))
	return nil
}

func parseRelay(b []byte) (r wire.Relay, rest []byte, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0])+1 {
		return r, nil, errShort
	}
	n := int(b[0])
	r.Address, rest = string(b[1:1+n]), b[1+n:]
	if wire.CheckAddress(r.Address) != nil {
		// Not quoted: where a length was edited, S may stand in it.
		return r, nil, errors.New("a relay's address is not host:port in lower case")
	}
	switch flag := rest[0]; {
	case flag == 0:
		return r, rest[1:], nil
	case flag != 1:
		return r, nil, errors.New("its pin flag is not 0 or 1")
	case len(rest) < 33:
		return r, nil, errShort
	}
	pin := wire.Pin(rest[1:33])
	r.Pin = &pin
	return r, rest[33:], nil
}
