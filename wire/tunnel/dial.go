package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// ErrUnreachable is wrapped when no relay could be reached at all.
var ErrUnreachable = errors.New("no relay can be reached")

// The codes a relay ends streams and connections with; what they mean to a
// client is in wire's errors.
const (
	CodeDone       = 0
	CodeRefused    = 1
	CodeDraining   = 2
	CodeSuperseded = 3
)

// Windows of a connection. A leg that nobody reads holds at most a stream's
// window, and the connection's is that of all streams that may stand, from the
// start (it would grow only with what is read), so that no leg can starve its
// neighbours.
const (
	streamWindow     = 256 << 10
	MaxDaemonStreams = 640
	handshakeTimeout = 5 * time.Second
)

// Config is the QUIC configuration of either side of a relay connection, on
// which the peer may open so many streams, and so many stand in all, whoever
// opened them. Keep-alives stay off: their packets are too small to notice a
// restarted relay, and on a client's leg they would be the whole idle cost.
func Config(incoming, streams int64) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 2 * wire.RelayIdle,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: uint64(streams) * streamWindow,
		MaxConnectionReceiveWindow:     uint64(streams) * streamWindow,
		MaxIncomingStreams:             incoming,
		MaxIncomingUniStreams:          -1,
	}
}

// connection is a QUIC connection to a relay with the socket under it.
type connection struct {
	*quic.Conn
	transport *quic.Transport
	socket    net.PacketConn
	exporter  [32]byte
}

// dial connects to a relay and authenticates it, by its pin or its name.
func dial(ctx context.Context, relay wire.Relay, roots *x509.CertPool, listen func() (net.PacketConn, error), incoming int64) (*connection, error) {
	address, err := new(net.Resolver).LookupNetIP(ctx, "ip", host(relay.Address))
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", port(relay.Address))
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	if listen == nil {
		listen = func() (net.PacketConn, error) { return net.ListenUDP("udp", nil) }
	}
	socket, err := listen()
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	c := &connection{socket: socket, transport: &quic.Transport{Conn: Trains(socket)}}
	remote := &net.UDPAddr{IP: address[0].AsSlice(), Zone: address[0].Zone(), Port: port}
	if c.Conn, err = c.transport.Dial(ctx, remote, tlsConfig(relay, roots), Config(incoming, max(incoming, 0)+1)); err != nil {
		c.release()
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	state := c.ConnectionState().TLS
	key, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, len(c.exporter))
	if err != nil {
		c.close(CodeDone)
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	c.exporter = [32]byte(key)
	return c, nil
}

func (c *connection) close(code quic.ApplicationErrorCode) {
	_ = c.CloseWithError(code, "") // the peer may be gone: all the same
	c.release()
}

// release frees the socket. Closing the transport first lets its goroutines
// end before the descriptor is reused.
func (c *connection) release() {
	_ = c.transport.Close()
	_ = c.socket.Close()
}

// tlsConfig authenticates the relay in VerifyConnection, which runs on every
// connection, resumed ones too.
func tlsConfig(relay wire.Relay, roots *x509.CertPool) *tls.Config {
	name := host(relay.Address)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{wire.ALPN},
		ServerName: name,
		// Not skipped: done below, by pin or by name.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the relay shows no certificate")
			}
			if relay.Pin != nil {
				if wire.PinOf(state.PeerCertificates[0]) != *relay.Pin {
					return errors.New("the relay's certificate is not the pinned one")
				}
				return nil
			}
			return verifyName(state, name, roots)
		},
	}
}

func verifyName(state tls.ConnectionState, name string, roots *x509.CertPool) error {
	options := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(options)
	return err
}

func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return p
}
