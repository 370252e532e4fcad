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

	"github.com/libp2p/go-yamux/v5"

	"openscope/wire"
)

// ErrProtocol is wrapped when a TLS peer wants to speak something else.
var ErrProtocol = errors.New("the peer speaks another protocol")

// tcpConn is a TLS connection that a relay has accepted. Until it is taken for
// a client's or a daemon's there is nothing behind it but TLS.
type tcpConn struct {
	conn     *tls.Conn
	exporter [32]byte
	first    *tlsStream
	ctx      context.Context
	end      context.CancelFunc

	closed sync.Once

	mu    sync.Mutex     // guards what is below
	taken bool           // the answer is out, or on its way
	mux   *yamux.Session // a daemon's
}

var _ Conn = (*tcpConn)(nil)

// OverTCP shakes hands with who has connected, within the time of a QUIC
// handshake. On error it has closed the connection.
func OverTCP(ctx context.Context, conn net.Conn, cfg *tls.Config) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	server := tls.Server(strict{conn}, cfg)
	err := server.HandshakeContext(ctx)
	if protocol := server.ConnectionState().NegotiatedProtocol; err == nil && protocol != wire.ALPN {
		err = fmt.Errorf("%w: %q", ErrProtocol, protocol)
	}
	if err != nil {
		abort(server)
		return nil, err
	}
	exporter, err := exporterOf(server.ConnectionState())
	if err != nil {
		abort(server)
		return nil, err
	}
	c := &tcpConn{conn: server, exporter: exporter, first: newTLSStream(server)}
	c.ctx, c.end = c.first.ctx, c.first.end
	return c, nil
}

func (c *tcpConn) Exporter() [32]byte       { return c.exporter }
func (c *tcpConn) RemoteAddr() net.Addr     { return c.conn.RemoteAddr() }
func (c *tcpConn) Context() context.Context { return c.ctx }

func (c *tcpConn) First(context.Context) (Stream, error) { return c.first, nil }

// TakeClient tells the client that it is joined: what follows is the daemon's.
func (c *tcpConn) TakeClient() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return net.ErrClosed
	}
	c.taken = true
	return c.answer(wire.StatusTaken)
}

// answer writes the relay's first message, which always fits into the socket.
func (c *tcpConn) answer(status wire.Status) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(refuseWithin)); err != nil {
		return err
	}
	if _, err := c.conn.Write(wire.Answer{Status: status}.Append(nil)); err != nil {
		return err
	}
	return c.conn.SetWriteDeadline(time.Time{})
}

// TakeDaemon tells the daemon to go on, in streams from here.
func (c *tcpConn) TakeDaemon(ctx context.Context) (Stream, error) {
	session, err := c.multiplex()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close(CodeRefused) }) // yamux asks no context
	defer stop()
	control, err := session.AcceptStream()
	if err != nil {
		return nil, err
	}
	return newMuxStream(c.ctx, control), nil
}

func (c *tcpConn) multiplex() (*yamux.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return nil, net.ErrClosed
	}
	c.taken = true
	if err := c.answer(wire.StatusTaken); err != nil {
		return nil, err
	}
	session, err := yamux.Server(muxSocket{c.conn}, muxConfig(1), nil)
	if err != nil {
		return nil, err
	}
	go func() { // ends with the session, which ends with its connection
		<-session.CloseChan()
		c.end()
	}()
	c.mux = session
	return session, nil
}

var errNoStream = errors.New("the connection has as many streams as it may")

func (c *tcpConn) OpenStream() (Stream, error) {
	c.mu.Lock()
	session := c.mux
	c.mu.Unlock()
	if session == nil || session.NumStreams() >= MaxDaemonStreams {
		return nil, errNoStream
	}
	ctx, cancel := context.WithTimeout(c.ctx, muxWrite)
	defer cancel()
	s, err := session.OpenStream(ctx)
	if err != nil {
		// Its place in yamux's table is lost. This happens to a connection on which
		// nothing moves.
		c.Close(CodeDone)
		return nil, err
	}
	return newMuxStream(c.ctx, s), nil
}

func (c *tcpConn) Close(code uint64) {
	c.closed.Do(func() {
		defer c.end()
		c.mu.Lock()
		taken, session := c.taken, c.mux
		c.taken = true
		c.mu.Unlock()
		switch {
		case session != nil:
			endMux(session, c.conn, code)
		case !taken && code != CodeDone:
			c.refuse(wire.Status(code))
		case c.first.whole():
			_ = socketOf(c.conn).Close() // the kernel delivers what is under way
		default:
			abort(c.conn)
		}
	})
}

// What a refused peer may still take and send: it has written msg1 behind its
// join, and to close on bytes unread would have the kernel drop the answer.
const (
	refuseWithin = time.Second
	refuseDrains = 8 << 10
)

func (c *tcpConn) refuse(status wire.Status) {
	defer abort(c.conn)
	if c.answer(status) != nil || c.conn.SetDeadline(time.Now().Add(refuseWithin)) != nil {
		return
	}
	if c.conn.CloseWrite() != nil || c.conn.SetReadDeadline(time.Now().Add(refuseWithin)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.conn, refuseDrains)
}

// tcpLink is a TLS connection that was dialed.
type tcpLink struct {
	conn     *tls.Conn
	came     *counted
	exporter [32]byte
	by       Rung
	mux      *yamux.Session // of a daemon that was taken
	probing  atomic.Bool    // a ping is out
	ctx      context.Context
	end      context.CancelFunc
}

var _ link = (*tcpLink)(nil)

// overTCP makes a link of a connection to a relay, or to whoever answers for it.
func overTCP(ctx context.Context, conn net.Conn, cfg *tls.Config, by Rung) (link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	came := &counted{Conn: conn}
	client := tls.Client(strict{came}, cfg)
	if err := client.HandshakeContext(ctx); err != nil {
		abort(client)
		return nil, err
	}
	if state := client.ConnectionState(); state.NegotiatedProtocol != wire.ALPN {
		abort(client)
		return nil, impostor(cfg.ServerName, state.PeerCertificates[0], ErrProtocol)
	}
	exporter, err := exporterOf(client.ConnectionState())
	if err != nil {
		abort(client)
		return nil, err
	}
	l := &tcpLink{conn: client, came: came, exporter: exporter, by: by}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l, nil
}

func (l *tcpLink) rung() Rung            { return l.by }
func (l *tcpLink) exporterKey() [32]byte { return l.exporter }
func (l *tcpLink) arrivals() uint64      { return l.came.pieces.Load() }

// probe pings, as long as no ping waits for its answer. What TCP itself says of
// the path ends at a proxy, where there is one.
func (l *tcpLink) probe() {
	if l.mux == nil || !l.probing.CompareAndSwap(false, true) {
		return
	}
	go func() { // ends with its answer, with the session, or after twice muxWrite
		defer l.probing.Store(false)
		_, _ = l.mux.Ping() // whether it was answered, arrivals say
	}()
}

// join leaves the relay's answer to the leg's reader: msg1 is to follow at once.
func (l *tcpLink) join(ctx context.Context, message []byte) (Stream, error) {
	if err := l.write(ctx, message); err != nil {
		return nil, err
	}
	s := newTLSStream(l.conn)
	s.answerExpected = true
	return s, nil
}

func (l *tcpLink) write(ctx context.Context, message []byte) error {
	stop := context.AfterFunc(ctx, func() { abort(l.conn) })
	defer stop()
	_, err := l.conn.Write(message)
	return err
}

// stand goes on in streams once the relay has taken the hello.
func (l *tcpLink) stand(ctx context.Context, message []byte) (Stream, error) {
	stop := context.AfterFunc(ctx, func() { abort(l.conn) })
	defer stop()
	if _, err := l.conn.Write(message); err != nil {
		return nil, err
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(wire.FirstBytes)); err != nil {
		return nil, err
	}
	first := newTLSStream(l.conn)
	defer first.end()
	if err := first.readAnswer(); err != nil {
		return nil, err
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	session, err := yamux.Client(muxSocket{l.conn}, muxConfig(MaxDaemonStreams), nil)
	if err != nil {
		return nil, err
	}
	l.mux = session
	control, err := session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return newMuxStream(l.ctx, control), nil
}

// accept ends with the connection too.
func (l *tcpLink) accept(ctx context.Context) (Stream, error) {
	stop := context.AfterFunc(ctx, l.lost) // yamux asks no context, and whoever stops accepting closes
	defer stop()
	s, err := l.mux.AcceptStream()
	if err != nil {
		return nil, err
	}
	return newMuxStream(l.ctx, s), nil
}

func (l *tcpLink) lost() { l.close() }

func (l *tcpLink) close() {
	l.end()
	if l.mux != nil {
		endMux(l.mux, l.conn, CodeDone)
	}
	abort(l.conn)
}
