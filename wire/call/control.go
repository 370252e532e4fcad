package call

import "fmt"

// AppendCancel appends the body of CANCEL: the call's id.
func AppendCancel(dst []byte, id ID) []byte { return append(dst, id[:]...) }

// ParseCancel reads the body of a CANCEL.
func ParseCancel(body []byte) (ID, error) {
	r := reader{rest: body}
	id := r.id()
	return id, r.finish("a cancel")
}

// Ping is the body of PING, and Pong of PONG. The daemon's carry a new
// challenge; the client's has none, and is zero.
//
//	nonce 8 | challenge 8
type Ping struct {
	Nonce     [8]byte
	Challenge Challenge
}

// Pong answers a Ping with its nonce.
type Pong Ping

// Append appends the body.
func (p Ping) Append(dst []byte) []byte { return append(append(dst, p.Nonce[:]...), p.Challenge[:]...) }

// Append appends the body.
func (p Pong) Append(dst []byte) []byte { return Ping(p).Append(dst) }

// ParsePing reads the body of a PING.
func ParsePing(body []byte) (Ping, error) {
	r := reader{rest: body}
	p := Ping{Nonce: [8]byte(r.take(8)), Challenge: Challenge(r.take(8))}
	return p, r.finish("a ping")
}

// ParsePong reads the body of a PONG.
func ParsePong(body []byte) (Pong, error) {
	p, err := ParsePing(body)
	return Pong(p), err
}

// NoticeKind is what a notice is about.
type NoticeKind uint8

// The kinds of notice.
const (
	NoticePending  NoticeKind = 1 // the call waits for the issuer
	NoticeAnswered NoticeKind = 2 // it no longer does
	NoticeEnding   NoticeKind = 3 // the session will end soon
	NoticeReason   NoticeKind = 4 // why the call ends as its END will say
)

// Notice is the body of NOTICE. The id is zero where it is about the session.
//
//	kind 1 | id 16 | text
type Notice struct {
	Kind NoticeKind
	ID   ID
	Text string
}

// Append appends the body; the text must be printable and at most [MaxText].
func (n Notice) Append(dst []byte) []byte {
	dst = append(append(dst, byte(n.Kind)), n.ID[:]...)
	return append(dst, n.Text...)
}

// ParseNotice reads the body of a NOTICE.
func ParseNotice(body []byte) (Notice, error) {
	r := reader{rest: body}
	n := Notice{Kind: NoticeKind(r.uint8()), ID: r.id()}
	n.Text = r.text()
	if err := r.finish("a notice"); err != nil {
		return Notice{}, err
	}
	if n.Kind < NoticePending || n.Kind > NoticeReason {
		return Notice{}, fmt.Errorf("%w: a notice of kind %d", ErrMalformed, n.Kind)
	}
	return n, nil
}

// Close is the body of CLOSE: nothing follows it.
//
//	cause 1 | text
type Close struct {
	Cause Cause
	Text  string
}

// Append appends the body.
func (c Close) Append(dst []byte) []byte { return append(append(dst, byte(c.Cause)), c.Text...) }

// ParseClose reads the body of a CLOSE.
func ParseClose(body []byte) (Close, error) {
	r := reader{rest: body}
	c := Close{Cause: Cause(r.uint8())}
	c.Text = r.text()
	if err := r.finish("a close"); err != nil {
		return Close{}, err
	}
	if !c.Cause.valid() {
		return Close{}, fmt.Errorf("%w: a close with %v", ErrMalformed, c.Cause)
	}
	return c, nil
}

// FaultCode says what an ERROR is about.
type FaultCode uint8

// The faults (§11).
const (
	FaultProtocol FaultCode = 1 // the peer broke the protocol
	FaultInternal FaultCode = 2 // the sender cannot go on
)

// Fault is the body of an ERROR: the last record of a connection that cannot go
// on.
//
//	code 1 | text ≤ 200, printable
type Fault struct {
	Code FaultCode
	Text string
}

// Append appends the body.
func (f Fault) Append(dst []byte) []byte { return append(append(dst, byte(f.Code)), f.Text...) }

// ParseFault reads a body.
func ParseFault(body []byte) (Fault, error) {
	r := reader{rest: body}
	f := Fault{Code: FaultCode(r.uint8())}
	f.Text = r.text()
	if err := r.finish("an error"); err != nil {
		return Fault{}, err
	}
	if f.Code != FaultProtocol && f.Code != FaultInternal {
		return Fault{}, fmt.Errorf("%w: an error of code %d", ErrMalformed, f.Code)
	}
	return f, nil
}
