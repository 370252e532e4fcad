package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"openscope/wire"
)

// errCut is the end of a TCP connection that TLS did not announce. Go's TLS
// takes io.EOF for an honest end where it falls between two records, and
// anybody on the path can send that: so it never gets to see one.
var errCut = errors.New("the connection was cut")

// strict is a connection under TLS whose end is never an honest one by itself.
type strict struct{ net.Conn }

func (s strict) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return n, err
}

// NetConn is what [abort] looks through.
func (s strict) NetConn() net.Conn { return s.Conn }

// counted is a connection that counts the pieces in which something has come.
type counted struct {
	net.Conn
	pieces atomic.Uint64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.pieces.Add(1)
	}
	return n, err
}

// NetConn is what [abort] looks through.
func (c *counted) NetConn() net.Conn { return c.Conn }

// socketOf is the socket under all the layers.
func socketOf(conn net.Conn) net.Conn {
	for {
		layer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = layer.NetConn()
	}
}

// abort ends a connection without a word, and without waiting: what is under
// way in either direction is lost, and nobody takes it for a whole.
func abort(conn net.Conn) {
	socket := socketOf(conn)
	if tcp, ok := socket.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = socket.Close()
}

// tlsStream is a whole TLS connection as one stream: a client's leg, at either
// of its ends. TLS's closing alert ends a direction; whatever else ends is cut.
type tlsStream struct {
	conn *tls.Conn
	ctx  context.Context
	end  context.CancelFunc

	parked parked

	mu             sync.Mutex // guards what is below
	heard, spoken  bool       // the ends of the two directions
	answerExpected bool       // a client's: the reader takes the relay's answer off
}

func newTLSStream(conn *tls.Conn) *tlsStream {
	s := &tlsStream{conn: conn}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

func (s *tlsStream) Context() context.Context           { return s.ctx }
func (s *tlsStream) SetReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *tlsStream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

func (s *tlsStream) Wait() error { return s.parked.wait(s.receive) }

func (s *tlsStream) Read(p []byte) (int, error) { return s.parked.read(p, s.receive) }

func (s *tlsStream) receive(p []byte) (int, error) {
	if s.answerExpected {
		if err := s.readAnswer(); err != nil {
			return 0, err
		}
		s.answerExpected = false
	}
	n, err := s.conn.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		s.mu.Lock()
		s.heard = true
		s.mu.Unlock()
	case err != nil && !timedOut(err):
		s.end() // nobody is there to write to either
	}
	return n, err
}

// readAnswer takes the relay's answer to the first message.
func (s *tlsStream) readAnswer() error {
	t, body, err := wire.ReadMessage(s.conn)
	if err != nil {
		return err
	}
	if t != wire.TypeAnswer {
		return fmt.Errorf("%w: type %d in answer to the first message", wire.ErrMessage, t)
	}
	answer, err := wire.ParseAnswer(body)
	if err != nil {
		return err
	}
	if answer.Status != wire.StatusTaken {
		return &answeredError{answer.Status}
	}
	return nil
}

func (s *tlsStream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	if err != nil && !timedOut(err) {
		s.end()
	}
	return n, err
}

func (s *tlsStream) CloseWrite() error {
	if err := s.conn.CloseWrite(); err != nil {
		return err
	}
	s.mu.Lock()
	s.spoken = true
	s.mu.Unlock()
	s.end()
	return nil
}

func (s *tlsStream) CancelRead(code uint64) { s.CancelWrite(code) }

// CancelWrite cuts both directions: there is no way to end one of them badly.
func (s *tlsStream) CancelWrite(uint64) {
	s.end()
	abort(s.conn)
}

// whole reports whether both directions have ended well.
func (s *tlsStream) whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard && s.spoken
}

func timedOut(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
