package call

import (
	"encoding/binary"
	"fmt"
)

// Output is the body of OUT: a piece of one stream.
//
//	id 16 | stream 1 | offset 8 | data
type Output struct {
	ID     ID
	Stream Stream
	Offset uint64
	Data   []byte
}

// OutputHeader is the size of an OUT before its data.
const OutputHeader = 16 + 1 + 8

// Append appends the body.
func (o Output) Append(dst []byte) []byte {
	dst = append(append(dst, o.ID[:]...), byte(o.Stream))
	dst = binary.BigEndian.AppendUint64(dst, o.Offset)
	return append(dst, o.Data...)
}

// ParseOutput reads the body of an OUT; Data aliases it.
func ParseOutput(body []byte) (Output, error) {
	r := reader{rest: body}
	o := Output{ID: r.id(), Stream: Stream(r.uint8()), Offset: r.uint64()}
	o.Data = r.take(len(r.rest))
	if err := r.finish("output"); err != nil {
		return Output{}, err
	}
	if o.Stream != Stdout && o.Stream != Stderr || len(o.Data) == 0 {
		return Output{}, fmt.Errorf("%w: %d bytes of output on stream %d", ErrMalformed, len(o.Data), o.Stream)
	}
	return o, nil
}

// Window is the body of WINDOW: what has come of a call's streams (and may be
// forgotten by the sender), and how far beyond it the sender may go.
//
//	id 16 | stdout 8 | stderr 8 | credit 8
type Window struct {
	ID             ID
	Stdout, Stderr uint64
	Credit         uint64
}

// MaxCredit is how far ahead of what was received a sender may ever go, over
// both streams of a call.
const MaxCredit = 1 << 20

// Append appends the body.
func (w Window) Append(dst []byte) []byte {
	dst = append(dst, w.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, w.Stdout)
	dst = binary.BigEndian.AppendUint64(dst, w.Stderr)
	return binary.BigEndian.AppendUint64(dst, w.Credit)
}

// ParseWindow reads the body of a WINDOW.
func ParseWindow(body []byte) (Window, error) {
	r := reader{rest: body}
	w := Window{ID: r.id(), Stdout: r.uint64(), Stderr: r.uint64(), Credit: r.uint64()}
	if err := r.finish("a window"); err != nil {
		return Window{}, err
	}
	if w.Credit > MaxCredit {
		return Window{}, fmt.Errorf("%w: a credit of %d bytes", ErrMalformed, w.Credit)
	}
	return w, nil
}
