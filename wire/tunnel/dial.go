package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
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
	Window           = streamWindow // for who reckons what legs can hold
	MaxDaemonStreams = 640
	handshakeTimeout = 5 * time.Second
)

// Config is the QUIC configuration of either side of a relay connection, on
// which the peer may open so many streams, and so many stand in all, whoever
// opened them. Keep-alives stay off: their packets are too small to notice a
// restarted relay, and on a client's leg they would be the whole idle cost.
func Config(incoming, streams int64) *quic.Config {
	return &quic.Config{
		// The least that a path must carry: tunnels take a part of what is usual.
		InitialPacketSize:              1200,
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

// dial connects to a relay by whichever way works first, and authenticates it, by
// its pin or its name. The relay may open so many streams.
func dial(ctx context.Context, w *Ways, relay wire.Relay, roots *x509.CertPool, incoming int64) (link, error) {
	rungs := w.rungs(relay.Address)
	addresses, err := lookup(ctx, relay.Address)
	if err != nil && !slices.Contains(rungs, Proxy) { // a proxy may know names that nobody here does
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	cfg := tlsConfig(relay, roots)
	l, err := race(ctx, attempts(rungs, relay.Address, addresses), func(ctx context.Context, a attempt) (link, error) {
		l, err := dialRung(ctx, w, a, cfg, incoming)
		if err != nil {
			return nil, fmt.Errorf("by %s: %w", a.rung, err)
		}
		return l, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", relay.Address, err)
	}
	w.Known.worked(relay.Address, l.rung())
	return l, nil
}

func dialRung(ctx context.Context, w *Ways, a attempt, cfg *tls.Config, incoming int64) (link, error) {
	switch a.rung {
	case TCP:
		conn, err := w.dialTCP(ctx, a.address)
		if err != nil {
			return nil, err
		}
		return overTCP(ctx, conn, cfg, TCP)
	case Proxy:
		ctx, cancel := context.WithTimeout(ctx, 2*handshakeTimeout)
		defer cancel()
		conn, err := w.Proxies.dial(ctx, w, a.address)
		if err != nil {
			return nil, err
		}
		return overTCP(ctx, conn, cfg, Proxy)
	}
	remote, err := net.ResolveUDPAddr("udp", a.address) // which is an address
	if err != nil {
		return nil, err
	}
	return dialQUIC(ctx, w, remote, cfg, incoming)
}

// lookup returns all addresses of a relay's name: its nodes may be many.
func lookup(ctx context.Context, relay string) ([]string, error) {
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", port(relay))
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host(relay))
	if err != nil {
		return nil, err
	}
	addresses := make([]string, len(ips))
	for i, ip := range ips {
		addresses[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port)).String()
	}
	return addresses, nil
}

// ImpostorError says that whoever answered is not the relay. Behind a proxy that
// intercepts TLS that is so by design: it has to let the relay through.
type ImpostorError struct {
	Relay  string // host:port
	Issuer string // of the certificate that was shown
	err    error
}

func (e *ImpostorError) Error() string {
	return fmt.Sprintf("%s is answered for by somebody whose certificate was issued by %q: %v", e.Relay, e.Issuer, e.err)
}

func (e *ImpostorError) Unwrap() error { return e.err }

// Host is what a proxy that intercepts TLS would have to exempt.
func (e *ImpostorError) Host() string { return host(e.Relay) }

func impostor(relay string, cert *x509.Certificate, err error) error {
	issuer := cert.Issuer.CommonName
	if issuer == "" {
		issuer = cert.Issuer.String()
	}
	return &ImpostorError{Relay: relay, Issuer: printable(issuer), err: err}
}

// printable is a stranger's text as it may be shown: short, and of ASCII.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
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
			leaf := state.PeerCertificates[0]
			if relay.Pin != nil {
				if wire.PinOf(leaf) != *relay.Pin {
					return impostor(relay.Address, leaf, errors.New("it is not the pinned one"))
				}
				return nil
			}
			if err := verifyName(state, name, roots); err != nil {
				return impostor(relay.Address, leaf, err)
			}
			return nil
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
