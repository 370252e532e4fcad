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

// Ways is how this machine gets out of its network. The zero Ways is the
// system's, and QUIC.
type Ways struct {
	// Rung is the one to take.
	Rung Rung
	// Listen opens the socket for QUIC; nil means udp on any port.
	Listen func() (net.PacketConn, error)
	// Dial opens TCP connections; nil means the system's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (w *Ways) listen() (net.PacketConn, error) {
	if w.Listen != nil {
		return w.Listen()
	}
	return net.ListenUDP("udp", nil)
}

// tcpBuffer bounds what the kernel takes of a connection in each direction: what
// is urgent waits behind all of it.
const tcpBuffer = 256 << 10

func (w *Ways) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	connect := w.Dial
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	conn, err := connect(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := errors.Join(tcp.SetReadBuffer(tcpBuffer), tcp.SetWriteBuffer(tcpBuffer)); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// dial connects to a relay and authenticates it, by its pin or its name. The
// relay may open so many streams.
func dial(ctx context.Context, w *Ways, relay wire.Relay, roots *x509.CertPool, incoming int64) (link, error) {
	l, err := dialRung(ctx, w, relay, tlsConfig(relay, roots), incoming)
	if err != nil {
		return nil, fmt.Errorf("reaching %s by %s: %w", relay.Address, w.Rung, err)
	}
	return l, nil
}

func dialRung(ctx context.Context, w *Ways, relay wire.Relay, cfg *tls.Config, incoming int64) (link, error) {
	if w.Rung == TCP {
		conn, err := w.dialTCP(ctx, relay.Address)
		if err != nil {
			return nil, err
		}
		return overTCP(ctx, conn, cfg, TCP)
	}
	address, err := new(net.Resolver).LookupNetIP(ctx, "ip", host(relay.Address))
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", port(relay.Address))
	if err != nil {
		return nil, err
	}
	remote := &net.UDPAddr{IP: address[0].AsSlice(), Zone: address[0].Zone(), Port: port}
	return dialQUIC(ctx, w, remote, cfg, incoming)
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
