package channel

import (
	"encoding/binary"
	"errors"
	"time"
)

// READY is the first record from the daemon:
//
//	HMAC 32 | challenge 8 | remaining_ms 8
const readySize = hmacSize + 8 + 8

func newReady(mac []byte, a Acceptance) []byte {
	b := append(append(make([]byte, 0, readySize), mac...), a.Challenge[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(max(a.Remaining, 0)/time.Millisecond))
}

// maxRemaining bounds what a daemon can say is left: more is nonsense.
const maxRemaining = 24 * time.Hour

func parseReady(b []byte) (mac []byte, a Acceptance, err error) {
	if len(b) != readySize {
		return nil, a, errors.New("READY is malformed")
	}
	ms := binary.BigEndian.Uint64(b[hmacSize+8:])
	if ms > uint64(maxRemaining/time.Millisecond) {
		return nil, a, errors.New("READY is malformed")
	}
	a = Acceptance{Challenge: [8]byte(b[hmacSize : hmacSize+8]), Remaining: time.Duration(ms) * time.Millisecond}
	return b[:hmacSize], a, nil
}
