package wire

import "fmt"

// Answer is the relay's first message on a TCP connection (§12): whether what
// the peer said first was taken. QUIC says the same with its own codes.
//
//	status 1
type Answer struct{ Status Status }

// Status is what a relay ends, or goes on with, a connection for (§3.4).
type Status uint8

// The statuses. Refused says nothing of why.
const (
	StatusTaken      Status = 0
	StatusRefused    Status = 1
	StatusDraining   Status = 2
	StatusSuperseded Status = 3
)

// Append appends the framed message.
func (a Answer) Append(dst []byte) []byte {
	return AppendMessage(dst, TypeAnswer, []byte{byte(a.Status)})
}

// ParseAnswer reads the body.
func ParseAnswer(body []byte) (Answer, error) {
	if err := sized("an answer", body, 1); err != nil {
		return Answer{}, err
	}
	if Status(body[0]) > StatusSuperseded {
		return Answer{}, fmt.Errorf("%w: status %d", ErrMessage, body[0])
	}
	return Answer{Status: Status(body[0])}, nil
}
