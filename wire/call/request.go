package call

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"openscope/wire"
)

// ID names one call for the life of its session; the client draws it.
type ID [16]byte

// String is the id in hex, as the log has it.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Challenge is what a request must name to be fresh (§7).
type Challenge [8]byte

// Param is one parameter, as text: the daemon's schema alone gives it a type.
type Param struct{ Name, Value string }

// Request is the body of CALL; the recipient's signature follows it.
//
//	id 16 | challenge 8 | length 1 | verb | n 1 | n × (length 1 | name | length 2 | value)
type Request struct {
	ID        ID
	Challenge Challenge
	Verb      string
	Params    []Param
}

// Limits of a request (§6).
const (
	MaxVerb   = 128
	MaxParams = 32
	MaxName   = 64
	MaxValue  = 4096
)

// Append appends the body. It must be within the limits: see [Request.Check].
func (r Request) Append(dst []byte) []byte {
	dst = append(append(dst, r.ID[:]...), r.Challenge[:]...)
	dst = append(append(dst, byte(len(r.Verb))), r.Verb...)
	dst = append(dst, byte(len(r.Params)))
	for _, p := range r.Params {
		dst = append(append(dst, byte(len(p.Name))), p.Name...)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Value)))
		dst = append(dst, p.Value...)
	}
	return dst
}

// maxRequest bounds the whole body, so that it fits into one record with its
// signature.
const maxRequest = 16_000

// Check returns an error for a request that does not fit into a CALL.
func (r Request) Check() error {
	if len(r.Verb) == 0 || len(r.Verb) > MaxVerb || len(r.Params) > MaxParams {
		return fmt.Errorf("%w: a verb of %d bytes with %d parameters", ErrMalformed, len(r.Verb), len(r.Params))
	}
	size := 26 + len(r.Verb)
	for _, p := range r.Params {
		if len(p.Name) == 0 || len(p.Name) > MaxName || len(p.Value) > MaxValue {
			return fmt.Errorf("%w: a parameter with a name of %d and a value of %d bytes", ErrMalformed, len(p.Name), len(p.Value))
		}
		size += 3 + len(p.Name) + len(p.Value)
	}
	if size > maxRequest {
		return fmt.Errorf("%w: a request of %d bytes", ErrMalformed, size)
	}
	return nil
}

// ParseRequest reads the body of a CALL, without its signature.
func ParseRequest(body []byte) (Request, error) {
	r := reader{rest: body}
	req := Request{ID: r.id(), Challenge: Challenge(r.take(8))}
	req.Verb = string(r.take(int(r.uint8())))
	n := int(r.uint8())
	if n > MaxParams {
		return Request{}, fmt.Errorf("%w: %d parameters", ErrMalformed, n)
	}
	for range n {
		var p Param
		p.Name = string(r.take(int(r.uint8())))
		p.Value = string(r.take(int(r.uint16())))
		req.Params = append(req.Params, p)
	}
	if err := r.finish("a request"); err != nil {
		return Request{}, err
	}
	return req, req.Check()
}

// SignRequest signs a request for one session and one connection of it.
func SignRequest(key ed25519.PrivateKey, rid wire.RendezvousID, th2 [32]byte, body []byte) []byte {
	return ed25519.Sign(key, requestBytes(rid, th2, body))
}

// VerifyRequest checks that the recipient's key signed the request, for this
// session and this connection.
func VerifyRequest(key ed25519.PublicKey, rid wire.RendezvousID, th2 [32]byte, body, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, requestBytes(rid, th2, body), signature)
}

func requestBytes(rid wire.RendezvousID, th2 [32]byte, body []byte) []byte {
	return wire.LP([]byte("openscope/1 request"), rid[:], th2[:], body)
}

// RequestHash names a signed request in the result's signature.
func RequestHash(body, signature []byte) [32]byte { return wire.Hash("request", body, signature) }
