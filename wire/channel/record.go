package channel

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"openscope/wire"
)

// Type is a record's first byte (§6). There is no record that may be ignored.
type Type uint8

// The records.
const (
	TypeFinished Type = 1
	TypeReady    Type = 2
	TypePassport Type = 3
	TypeCall     Type = 4
	TypeCancel   Type = 5
	TypeWindow   Type = 6
	TypeOut      Type = 7
	TypeEnd      Type = 8
	TypePing     Type = 9
	TypePong     Type = 10
	TypeNotice   Type = 11
	TypeError    Type = 12
	TypeClose    Type = 13
)

// A record on the wire:
//
//	length 2 | ciphertext of: type 1 | length 2 | body | zeros to a multiple of 256
const (
	recordHead   = 2
	plainHead    = 3
	padTo        = 256
	maxPlain     = 16_384
	minRecord    = padTo + tagSize
	maxRecord    = maxPlain + tagSize
	maxRecords   = 1 << 32
	maxDirection = 64 << 30 // bytes
)

// MaxBody is the longest body of a record.
const MaxBody = maxPlain - plainHead

var (
	// ErrRecord is wrapped by every refusal of a record; the connection is over.
	ErrRecord = errors.New("bad record")
	// ErrPeer is wrapped beside it where the record is the peer's own: it opened,
	// so that nobody in between can have made it bad.
	ErrPeer = errors.New("of the peer's own making")
	// ErrSpent says that a direction has carried all that its key may.
	ErrSpent = errors.New("the connection has carried all it may")
)

// smallRecord is how large a direction's buffer is until a larger record comes:
// the handshake, and a connection that is idle, need no more.
const smallRecord = recordHead + 4*padTo + tagSize

// room is a buffer of n bytes for a record, the one there is if it is large
// enough. There are two sizes, so that a direction allocates twice at most.
func room(buf []byte, n int) []byte {
	if n <= cap(buf) {
		return buf[:n]
	}
	if n <= smallRecord {
		return make([]byte, n, smallRecord)
	}
	return make([]byte, n, recordHead+maxRecord)
}

// direction is one direction's key and how far it has come. The nonce is the
// IV xor the number of the record.
type direction struct {
	aead  cipher.AEAD
	iv    [12]byte
	nonce [12]byte
	count uint64
	bytes uint64
	err   error // the first, which sticks
}

func newDirection(k recordKey) direction {
	return direction{aead: k.aead(), iv: [12]byte(k.iv)}
}

// step spends one nonce and n bytes.
func (d *direction) step(n int) error {
	if d.count >= maxRecords || d.bytes+uint64(n) > maxDirection {
		return ErrSpent
	}
	d.nonce = d.iv
	tail := binary.BigEndian.Uint64(d.nonce[4:]) ^ d.count
	binary.BigEndian.PutUint64(d.nonce[4:], tail)
	d.count++
	d.bytes += uint64(n)
	return nil
}

// tx is the sending direction.
type tx struct {
	leg wire.Leg

	// writing is held by whoever writes, and guards what is below. A channel, not
	// a mutex: one waits here for the network, and in a test's bubble time goes on
	// only while all that wait do so for something of the bubble.
	writing chan struct{}
	dir     direction
	buf     []byte
}

func newTx(leg wire.Leg, k recordKey) tx {
	return tx{leg: leg, dir: newDirection(k), writing: make(chan struct{}, 1)}
}

func (t *tx) write(typ Type, parts [][]byte) error {
	t.writing <- struct{}{}
	defer func() { <-t.writing }()
	if t.dir.err == nil {
		t.dir.err = t.seal(typ, parts)
	}
	return t.dir.err
}

func (t *tx) seal(typ Type, parts [][]byte) error {
	size := plainHead
	for _, part := range parts {
		size += len(part)
	}
	if size > maxPlain {
		return fmt.Errorf("%w: a body over %d bytes", ErrRecord, MaxBody)
	}
	padded := (size + padTo - 1) / padTo * padTo
	if err := t.dir.step(padded); err != nil {
		return err
	}
	t.buf = room(t.buf, recordHead+padded+tagSize)
	head, plain := t.buf[:recordHead], t.buf[recordHead:][:padded]
	binary.BigEndian.PutUint16(head, uint16(padded+tagSize))
	plain[0] = byte(typ)
	binary.BigEndian.PutUint16(plain[1:], uint16(size-plainHead))
	rest := plain[plainHead:]
	for _, part := range parts {
		rest = rest[copy(rest, part):]
	}
	clear(rest)
	t.dir.aead.Seal(plain[:0], t.dir.nonce[:], plain, head)
	_, err := t.leg.Write(t.buf)
	return err
}

var errWriteClosed = errors.New("the connection is closed for writing")

func (t *tx) closeWrite() error {
	t.writing <- struct{}{}
	defer func() { <-t.writing }()
	if t.dir.err == nil {
		t.dir.err = errWriteClosed
	}
	return t.leg.CloseWrite()
}

// rx is the receiving direction.
type rx struct {
	leg     wire.Leg
	allowed func(first bool, t Type) bool

	mu   sync.Mutex // guards what is below
	dir  direction
	head [recordHead]byte
	buf  []byte // of the record after its head
}

func newRx(leg wire.Leg, k recordKey, r role) rx {
	allowed := fromDaemon
	if r == daemonRole {
		allowed = fromClient
	}
	return rx{leg: leg, dir: newDirection(k), allowed: allowed}
}

// fromClient is what a client may send: FINISHED first and once.
func fromClient(first bool, t Type) bool {
	switch t {
	case TypeFinished:
		return first
	case TypeCall, TypeCancel, TypeWindow, TypePing, TypePong, TypeClose:
		return !first
	}
	return false
}

// fromDaemon is what a daemon may send: READY first and once.
func fromDaemon(first bool, t Type) bool {
	switch t {
	case TypeReady:
		return first
	case TypePassport, TypeOut, TypeEnd, TypePing, TypePong, TypeNotice, TypeError, TypeClose:
		return !first
	}
	return false
}

func (r *rx) read() (Type, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir.err != nil {
		return 0, nil, r.dir.err
	}
	t, body, err := r.open()
	if err != nil {
		r.dir.err = err
		return 0, nil, err
	}
	return t, body, nil
}

// open reads one record: its length is checked before anything is read of it.
func (r *rx) open() (Type, []byte, error) {
	if _, err := io.ReadFull(r.leg, r.head[:]); err != nil {
		return 0, nil, err // EOF between records is the caller's to judge
	}
	size := int(binary.BigEndian.Uint16(r.head[:]))
	if size < minRecord || size > maxRecord || (size-tagSize)%padTo != 0 {
		return 0, nil, fmt.Errorf("%w: a length of %d", ErrRecord, size)
	}
	r.buf = room(r.buf, size)
	if _, err := io.ReadFull(r.leg, r.buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	first := r.dir.count == 0
	if err := r.dir.step(size - tagSize); err != nil {
		return 0, nil, err
	}
	plain, err := r.dir.aead.Open(r.buf[:0], r.dir.nonce[:], r.buf, r.head[:])
	if err != nil {
		return 0, nil, fmt.Errorf("%w: it does not open", ErrRecord)
	}
	t, body, err := parsePlain(plain)
	if err == nil && !r.allowed(first, t) {
		err = fmt.Errorf("%w: type %d out of order", ErrRecord, t)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w (%w)", err, ErrPeer)
	}
	return t, body, nil
}

// parsePlain takes an opened record apart: the padding must be the least, and
// zeros, so that there is one way to write a record.
func parsePlain(plain []byte) (Type, []byte, error) {
	n := plainHead + int(binary.BigEndian.Uint16(plain[1:]))
	if n > len(plain) || len(plain)-n >= padTo {
		return 0, nil, fmt.Errorf("%w: a body of %d in %d bytes", ErrRecord, n-plainHead, len(plain))
	}
	for _, b := range plain[n:] {
		if b != 0 {
			return 0, nil, fmt.Errorf("%w: padding that is not zero", ErrRecord)
		}
	}
	return Type(plain[0]), plain[plainHead:n], nil
}
