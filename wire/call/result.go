package call

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"openscope/wire"
)

// Cause is why a call, or with CLOSE a connection, is over.
type Cause uint8

// The causes. All but Replaced end a call; CLOSE uses Expired, Revoked, Closed,
// AuditFailure and Replaced.
const (
	Exited       Cause = 1  // the verb ran; Status is its own
	Failed       Cause = 2  // it could not be run
	Timeout      Cause = 3  // the verb's own time was up
	Denied       Cause = 4  // refused; final
	Cancelled    Cause = 5  // by the recipient
	Expired      Cause = 6  // the session's time was up
	Revoked      Cause = 7  // by the issuer
	Closed       Cause = 8  // the daemon is going down
	Limit        Cause = 9  // rate, slots, calls or output
	Stale        Cause = 10 // it came too late; nothing ran
	Unseen       Cause = 11 // it never came; nothing ran
	Cut          Cause = 12 // the connection was lost; the outcome is unknown
	AuditFailure Cause = 13 // the log could not be written
	Replaced     Cause = 14 // another connection took this one's place
)

var causeNames = [...]string{
	Exited: "exited", Failed: "failed", Timeout: "timeout", Denied: "denied", Cancelled: "cancelled",
	Expired: "expired", Revoked: "revoked", Closed: "closed", Limit: "limit", Stale: "stale",
	Unseen: "unseen", Cut: "cut", AuditFailure: "audit-failure", Replaced: "replaced",
}

// String is the cause as the log and --json have it.
func (c Cause) String() string {
	if c.valid() {
		return causeNames[c]
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

func (c Cause) valid() bool { return c >= Exited && c <= Replaced }

// Stream is one of a call's two outputs.
type Stream uint8

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Digest is how much of a stream was sent, and its hash.
type Digest struct {
	Bytes  uint64
	SHA256 [32]byte
}

// Result is the body of END; the daemon's signature follows it.
//
//	id 16 | cause 1 | status 4 | stdout (bytes 8 | SHA-256 32) | stderr (8 | 32) | challenge 8 | chain head 32
type Result struct {
	ID             ID
	Cause          Cause
	Status         int32
	Stdout, Stderr Digest
	Challenge      Challenge
	// ChainHead is the log's newest hash: the receipt that the call is in it.
	ChainHead [32]byte
}

// Append appends the body.
func (r Result) Append(dst []byte) []byte {
	dst = append(append(dst, r.ID[:]...), byte(r.Cause))
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Status))
	for _, d := range []Digest{r.Stdout, r.Stderr} {
		dst = binary.BigEndian.AppendUint64(dst, d.Bytes)
		dst = append(dst, d.SHA256[:]...)
	}
	dst = append(dst, r.Challenge[:]...)
	return append(dst, r.ChainHead[:]...)
}

// ParseResult reads the body of an END, without its signature.
func ParseResult(body []byte) (Result, error) {
	r := reader{rest: body}
	res := Result{ID: r.id(), Cause: Cause(r.uint8()), Status: int32(r.uint32())}
	res.Stdout = Digest{Bytes: r.uint64(), SHA256: [32]byte(r.take(32))}
	res.Stderr = Digest{Bytes: r.uint64(), SHA256: [32]byte(r.take(32))}
	res.Challenge, res.ChainHead = Challenge(r.take(8)), [32]byte(r.take(32))
	if err := r.finish("a result"); err != nil {
		return Result{}, err
	}
	if !res.Cause.valid() || res.Cause == Replaced {
		return Result{}, fmt.Errorf("%w: a result with %v", ErrMalformed, res.Cause)
	}
	return res, nil
}

// SignResult signs a result as the answer to one signed request.
func SignResult(key ed25519.PrivateKey, rid wire.RendezvousID, request [32]byte, body []byte) []byte {
	return ed25519.Sign(key, resultBytes(rid, request, body))
}

// VerifyResult checks that the daemon gave this answer to this request.
func VerifyResult(key ed25519.PublicKey, rid wire.RendezvousID, request [32]byte, body, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, resultBytes(rid, request, body), signature)
}

func resultBytes(rid wire.RendezvousID, request [32]byte, body []byte) []byte {
	return wire.LP([]byte("openscope/1 result"), rid[:], request[:], body)
}
