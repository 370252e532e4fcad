package call

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every parser's refusal.
var ErrMalformed = errors.New("malformed record")

// MaxText bounds every text that is meant for people, in bytes (§11).
const MaxText = 200

// reader takes a record's body apart. The first shortage sticks; finish
// reports it, and anything that is left over.
type reader struct {
	rest []byte
	err  error
}

// largestField is the size of the largest field of fixed size; nothing larger is
// made up in place of what is missing.
const largestField = 32

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.rest) < n {
		r.err = ErrMalformed
		return make([]byte, min(n, largestField))
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint8() uint8   { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) id() ID         { return ID(r.take(16)) }

// text takes the rest, which must be at most [MaxText] printable bytes: it will
// be shown to people.
func (r *reader) text() string {
	rest := r.take(len(r.rest))
	if len(rest) > MaxText {
		r.err = ErrMalformed
		return ""
	}
	for _, b := range rest {
		if b < 0x20 || b > 0x7e {
			r.err = ErrMalformed
			return ""
		}
	}
	return string(rest)
}

func (r *reader) finish(what string) error {
	if r.err != nil {
		return fmt.Errorf("%w: %s is too short or not printable", ErrMalformed, what)
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("%w: %s has %d bytes too many", ErrMalformed, what, len(r.rest))
	}
	return nil
}
