package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// A daemon's streams over TCP are yamux's, within TLS. Their windows are those
// of QUIC, so that a leg that nobody reads holds as much here as there.
const (
	muxWrite = 10 * time.Second // that one frame may take, and a ping
	muxFrame = 16 << 10         // two seconds at 64 kbit/s: what urgent words wait for
)

// muxConfig is either end's; the peer may open so many streams. yamux's keep-alive
// is off: it takes a ping that waits behind output for a path that has gone.
func muxConfig(incoming uint32) *yamux.Config {
	cfg := yamux.DefaultConfig()
	cfg.AcceptBacklog = MaxDaemonStreams
	cfg.MaxIncomingStreams = incoming
	cfg.InitialStreamWindowSize, cfg.MaxStreamWindowSize = streamWindow, streamWindow
	cfg.MaxMessageSize = muxFrame
	cfg.EnableKeepAlive = false
	cfg.ConnectionWriteTimeout = muxWrite
	cfg.MeasureRTTInterval = 24 * time.Hour // windows do not grow: nobody asks
	cfg.LogOutput = io.Discard
	return cfg
}

// muxSocket is the TLS connection under yamux. Its end says nothing: what
// streams say of themselves is in their own frames.
type muxSocket struct{ *tls.Conn }

func (s muxSocket) Close() error { return socketOf(s.Conn).Close() }

// endMux ends a session and tells the peer the code, if it reads at all.
func endMux(session *yamux.Session, conn *tls.Conn, code uint64) {
	_ = conn.SetWriteDeadline(time.Now().Add(muxLastWords))
	_ = session.CloseWithError(uint32(code))
}

// muxLastWords bounds the wait for a frame that is being written at the end.
const muxLastWords = 250 * time.Millisecond

// muxStream is a yamux stream as Stream. yamux tells of a reset only who reads
// or writes, and so its context ends there.
type muxStream struct {
	*yamux.Stream
	ctx context.Context
	end context.CancelFunc

	parked parked
}

func newMuxStream(conn context.Context, s *yamux.Stream) *muxStream {
	m := &muxStream{Stream: s}
	m.ctx, m.end = context.WithCancel(conn)
	return m
}

func (s *muxStream) Context() context.Context { return s.ctx }

func (s *muxStream) Wait() error { return s.parked.wait(s.receive) }

func (s *muxStream) Read(p []byte) (int, error) { return s.parked.read(p, s.receive) }

func (s *muxStream) receive(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 && err != nil { // the credit could not be given back: it would be missing for ever
		s.CancelWrite(CodeDone)
		return n, nil
	}
	return n, s.noted(err)
}

func (s *muxStream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	return n, s.noted(err)
}

// noted ends the stream's context with the stream, and gives yamux's timeouts
// the name that everybody else's have.
func (s *muxStream) noted(err error) error {
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case errors.Is(err, yamux.ErrTimeout):
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	default:
		s.end()
	}
	return err
}

func (s *muxStream) CloseWrite() error {
	defer s.end()
	return s.Stream.CloseWrite()
}

func (s *muxStream) CancelRead(code uint64) { s.CancelWrite(code) }

func (s *muxStream) CancelWrite(code uint64) {
	s.end()
	_ = s.ResetWithError(uint32(code)) // it may have ended by itself
}
