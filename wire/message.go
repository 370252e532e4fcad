package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MessageType is the first byte of every message to or from a relay (§3).
type MessageType uint8

// The messages. Each has a file of its own.
const (
	TypeHello       MessageType = 1
	TypeHelloAck    MessageType = 2
	TypeRegister    MessageType = 3
	TypeRegisterAck MessageType = 4
	TypeUnregister  MessageType = 5
	TypeKept        MessageType = 6
	TypeHeartbeat   MessageType = 7
	TypeJoin        MessageType = 8
	TypePreface     MessageType = 9
	TypeAnswer      MessageType = 10
)

// ErrMessage is wrapped by every refusal of a message to or from a relay.
var ErrMessage = errors.New("malformed relay message")

// messageHead is type 1 | length of the body 2.
const messageHead = 3

// AppendMessage frames a body.
//
//	0       1       2       3
//	+-------+-------+-------+----
//	| type  |    length     | body …
//	+-------+-------+-------+----
func AppendMessage(dst []byte, t MessageType, body []byte) []byte {
	dst = append(dst, byte(t))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(body)))
	return append(dst, body...)
}

// ReadMessage reads one message and nothing beyond it. The length is checked
// before the body is allocated.
func ReadMessage(r io.Reader) (MessageType, []byte, error) {
	var head [messageHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("reading a relay message: %w", err)
	}
	size := binary.BigEndian.Uint16(head[1:])
	if size > MaxRelayMessage-messageHead {
		return 0, nil, fmt.Errorf("%w: a body of %d bytes", ErrMessage, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("reading a relay message: %w", err)
	}
	return MessageType(head[0]), body, nil
}

// sized returns an error unless the body has exactly the given size.
func sized(what string, body []byte, size int) error {
	if len(body) != size {
		return fmt.Errorf("%w: %s of %d bytes, not %d", ErrMessage, what, len(body), size)
	}
	return nil
}
