package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// quicConn is a QUIC connection at either of its ends.
type quicConn struct {
	*quic.Conn
	exporter [32]byte
	first    *quic.Stream // the relay's
	release  func()       // frees what is under a connection that was dialed
}

var (
	_ Conn = (*quicConn)(nil)
	_ link = (*quicConn)(nil)
)

// OverQUIC is a connection that a relay has accepted.
func OverQUIC(conn *quic.Conn) (Conn, error) {
	exporter, err := exporterOf(conn.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	return &quicConn{Conn: conn, exporter: exporter, release: func() {}}, nil
}

func exporterOf(state tls.ConnectionState) (exporter [32]byte, err error) {
	key, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, len(exporter))
	if err != nil {
		return exporter, fmt.Errorf("exporting the connection's key: %w", err)
	}
	return [32]byte(key), nil
}

// Keep says whether a datagram is worth looking at. Anybody can have sent it, in
// any address's name.
type Keep func(from netip.AddrPort, datagram []byte) bool

// dialQUIC connects to one address of a relay.
func dialQUIC(ctx context.Context, w *Ways, remote *net.UDPAddr, cfg *tls.Config, incoming int64) (link, error) {
	socket, err := w.listen()
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: Trains(socket, nil)}
	// Closing the transport first lets its goroutines end before the descriptor
	// is reused.
	release := func() { _ = transport.Close(); _ = socket.Close() }
	conn, err := transport.Dial(ctx, remote, cfg, Config(incoming, max(incoming, 0)+1))
	if err != nil {
		release()
		return nil, err
	}
	exporter, err := exporterOf(conn.ConnectionState().TLS)
	if err != nil {
		_ = conn.CloseWithError(CodeDone, "")
		release()
		return nil, err
	}
	return &quicConn{Conn: conn, exporter: exporter, release: release}, nil
}

func (c *quicConn) Exporter() [32]byte    { return c.exporter }
func (c *quicConn) exporterKey() [32]byte { return c.exporter }
func (c *quicConn) rung() Rung            { return QUIC }
func (c *quicConn) probe()                {} // what was sent is acknowledged
func (c *quicConn) arrivals() uint64      { return c.ConnectionStats().PacketsReceived }
func (c *quicConn) close()                { c.Close(CodeDone) }
func (c *quicConn) lost()                 { _ = c.CloseWithError(CodeDone, "") }

func (c *quicConn) Close(code uint64) {
	_ = c.CloseWithError(quic.ApplicationErrorCode(code), "") // the peer may be gone: all the same
	c.release()
}

func (c *quicConn) First(ctx context.Context) (Stream, error) {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	c.first = s
	return quicStream{s}, nil
}

func (c *quicConn) TakeClient() error { return nil }

var errNoFirst = errors.New("nothing was said first")

func (c *quicConn) TakeDaemon(context.Context) (Stream, error) {
	if c.first == nil {
		return nil, errNoFirst
	}
	return quicStream{c.first}, nil
}

func (c *quicConn) OpenStream() (Stream, error) {
	s, err := c.Conn.OpenStream()
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

// join and stand are one: the codes of QUIC answer.
func (c *quicConn) join(ctx context.Context, message []byte) (Stream, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(message); err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c *quicConn) stand(ctx context.Context, message []byte) (Stream, error) {
	return c.join(ctx, message)
}

func (c *quicConn) accept(ctx context.Context) (Stream, error) {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

// quicStream is a QUIC stream as Stream.
type quicStream struct{ *quic.Stream }

func (s quicStream) Wait() error {
	var first [1]byte
	_, err := s.Peek(first[:])
	return err
}

func (s quicStream) CloseWrite() error       { return s.Stream.Close() }
func (s quicStream) CancelRead(code uint64)  { s.Stream.CancelRead(quic.StreamErrorCode(code)) }
func (s quicStream) CancelWrite(code uint64) { s.Stream.CancelWrite(quic.StreamErrorCode(code)) }
