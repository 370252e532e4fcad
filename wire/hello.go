package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
)

// Hello opens a daemon's connection: which token, and proof of it.
//
//	version 1 | token id 16 | signature 64
type Hello struct {
	Token     TokenID
	Signature []byte
}

const helloSize = 1 + 16 + ed25519.SignatureSize

// Append appends the framed message.
func (h Hello) Append(dst []byte) []byte {
	body := append([]byte{RelayVersion}, h.Token[:]...)
	return AppendMessage(dst, TypeHello, append(body, h.Signature...))
}

// ParseHello reads the body of a hello.
func ParseHello(body []byte) (Hello, error) {
	if err := sized("a hello", body, helloSize); err != nil {
		return Hello{}, err
	}
	if body[0] != RelayVersion {
		return Hello{}, fmt.Errorf("%w: version %d", ErrMessage, body[0])
	}
	return Hello{Token: TokenID(body[1:17]), Signature: body[17:]}, nil
}

// Verify checks the proof against the token's public half, for the connection
// with this exporter.
func (h Hello) Verify(public ed25519.PublicKey, exporter [32]byte) bool {
	return ed25519.Verify(public, helloBytes(exporter, h.Token), h.Signature)
}

// helloBytes is what a token signs.
func helloBytes(exporter [32]byte, id TokenID) []byte {
	return LP([]byte("openscope/1 relay hello"), exporter[:], id[:])
}

// HelloAck answers a hello: this node's own address, for handles, and how much
// the daemon may do.
//
//	version 1 | length 1 | address | sessions 2 | legs per session 1
type HelloAck struct {
	// Address is host:port in lower case, or empty: the one that was dialed.
	Address  string
	Sessions uint16
	Legs     uint8
}

// Append appends the framed message.
func (a HelloAck) Append(dst []byte) []byte {
	body := append([]byte{RelayVersion, byte(len(a.Address))}, a.Address...)
	body = binary.BigEndian.AppendUint16(body, a.Sessions)
	return AppendMessage(dst, TypeHelloAck, append(body, a.Legs))
}

// ParseHelloAck reads the body of the answer.
func ParseHelloAck(body []byte) (HelloAck, error) {
	if len(body) < 2 || body[0] != RelayVersion || body[1] > MaxAddress {
		return HelloAck{}, fmt.Errorf("%w: an answer to hello", ErrMessage)
	}
	n := int(body[1])
	if err := sized("an answer to hello", body, 2+n+3); err != nil {
		return HelloAck{}, err
	}
	address, rest := string(body[2:2+n]), body[2+n:]
	if address != "" && CheckAddress(address) != nil {
		return HelloAck{}, fmt.Errorf("%w: the address in an answer to hello", ErrMessage)
	}
	return HelloAck{Address: address, Sessions: binary.BigEndian.Uint16(rest), Legs: rest[2]}, nil
}
