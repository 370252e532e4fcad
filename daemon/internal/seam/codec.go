package seam

import (
	"encoding/binary"
	"errors"
)

// errMessage is why a pipe ends whose other end says what it must not.
var errMessage = errors.New("a message that makes no sense")

// encoder appends fixed fields as they are, and others behind their length.
type encoder []byte

func (e encoder) byte(b byte) encoder    { return append(e, b) }
func (e encoder) u32(n uint32) encoder   { return binary.BigEndian.AppendUint32(e, n) }
func (e encoder) u64(n uint64) encoder   { return binary.BigEndian.AppendUint64(e, n) }
func (e encoder) fixed(b []byte) encoder { return append(e, b...) }
func (e encoder) long(b []byte) encoder  { return append(e.u32(uint32(len(b))), b...) }
func (e encoder) text(s string, most int) encoder {
	return e.long([]byte(s[:min(len(s), most)]))
}

func (e encoder) flag(b bool) encoder {
	if b {
		return e.byte(1)
	}
	return e.byte(0)
}

// decoder takes fields off a body. The first that does not fit sticks: what is
// taken then is zero, and end says so.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fixed(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte   { return d.fixed(1)[0] }
func (d *decoder) u32() uint32  { return binary.BigEndian.Uint32(d.fixed(4)) }
func (d *decoder) u64() uint64  { return binary.BigEndian.Uint64(d.fixed(8)) }
func (d *decoder) id() [16]byte { return [16]byte(d.fixed(16)) }

func (d *decoder) flag() bool {
	b := d.byte()
	d.bad = d.bad || b > 1
	return b == 1
}

// long takes a field of at most so many bytes.
func (d *decoder) long(most int) []byte {
	n := d.u32()
	if d.bad || n > uint32(most) || int(n) > len(d.rest) {
		d.bad = true
		return nil
	}
	return d.fixed(int(n))
}

// all takes the rest.
func (d *decoder) all() []byte {
	b := d.rest
	d.rest = nil
	return b
}

// text takes words: what is not printable ASCII in them is replaced, for they may
// be a stranger's.
func (d *decoder) text(most int) string {
	b := d.long(most)
	clean := make([]byte, len(b))
	for i, c := range b {
		if clean[i] = c; c < 0x20 || c > 0x7e {
			clean[i] = '?'
		}
	}
	return string(clean)
}

func (d *decoder) end() error {
	if d.bad || len(d.rest) > 0 {
		return errMessage
	}
	return nil
}
