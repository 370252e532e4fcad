package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// Config is what a relay is told. The zero Config refuses.
type Config struct {
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Conn is the socket; the relay closes it.
	Conn net.PacketConn
	// Tokens says which deployments may stand here.
	Tokens Tokens
	// PublicAddress is this node's own host:port for handles; empty means the
	// one that daemons dialed.
	PublicAddress string
	Logger        *slog.Logger
	Clock         func() time.Time
	// Tap is told the size and time of everything forwarded; nil in production.
	Tap Tap
}

// Tokens are the public halves of the deployment tokens.
type Tokens interface {
	Lookup(id wire.TokenID) (ed25519.PublicKey, bool)
}

// Tap sees what a relay sees.
type Tap interface {
	Forwarded(leg uint64, up bool, n int, at time.Time)
}

// Limits of one relay process. They bound memory before anybody has proved
// anything; per-address limits are not here yet.
const (
	maxConnections     = 8192
	maxSessionsOfToken = 1024
	tokenCheck         = 500 * time.Millisecond
	// peerStreams is how many streams a peer opens: its control stream, or its leg.
	// All others are the relay's own, so that nobody fills a window unknown.
	peerStreams = 1
)

// Relay is one relay: New builds it, Run runs it.
type Relay struct {
	cfg       Config
	logger    *slog.Logger
	transport *quic.Transport
	registry  *registry
	children  sync.WaitGroup

	mu       sync.Mutex // guards what is below
	standing int
}

// New checks the configuration; it listens to nothing yet.
func New(cfg Config) (*Relay, error) {
	if cfg.Certificate == nil || cfg.Conn == nil || cfg.Tokens == nil {
		return nil, errors.New("building a relay: certificate, socket and tokens are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Relay{cfg: cfg, logger: cfg.Logger, registry: newRegistry()}, nil
}

// Run serves until the context ends, and returns when every goroutine has.
func (r *Relay) Run(ctx context.Context) error {
	defer r.cfg.Conn.Close()
	keys, err := r.deriveKeys()
	if err != nil {
		return err
	}
	r.transport = &quic.Transport{
		Conn:                tunnel.Trains(r.cfg.Conn),
		StatelessResetKey:   &keys.reset,
		TokenGeneratorKey:   &keys.address,
		VerifySourceAddress: r.crowded,
	}
	defer r.transport.Close()
	listener, err := r.transport.Listen(&tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{wire.ALPN},
		GetCertificate:         r.cfg.Certificate,
		SessionTicketsDisabled: true,
	}, tunnel.Config(peerStreams, peerStreams+tunnel.MaxDaemonStreams))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	r.logger.Info("relay listening", "address", r.cfg.Conn.LocalAddr().String())
	err = r.accept(ctx, listener)
	r.registry.drain()
	_ = listener.Close() // ends the accept loop's leftovers; there is nothing to report
	r.children.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *Relay) accept(ctx context.Context, listener *quic.Listener) error {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		if !r.admit() {
			_ = conn.CloseWithError(tunnel.CodeDraining, "")
			continue
		}
		r.children.Go(func() {
			defer r.leave()
			r.serve(ctx, conn)
		})
	}
}

func (r *Relay) admit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.standing >= maxConnections {
		return false
	}
	r.standing++
	return true
}

func (r *Relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standing--
}

// crowded asks newcomers to prove their address once half the room is taken.
func (r *Relay) crowded(net.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standing > maxConnections/2
}

// transportKeys survive a restart without a file of their own: peers of the
// process before are told at once that it is gone (§3).
type transportKeys struct {
	reset   quic.StatelessResetKey
	address quic.TokenGeneratorKey
}

func (r *Relay) deriveKeys() (k transportKeys, err error) {
	cert, err := r.cfg.Certificate(&tls.ClientHelloInfo{})
	if err != nil {
		return k, fmt.Errorf("reading the certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return k, fmt.Errorf("deriving the transport's keys: %w", err)
	}
	defer clear(private)
	for label, key := range map[string]*[32]byte{
		"openscope/1 stateless reset": (*[32]byte)(&k.reset),
		"openscope/1 address token":   (*[32]byte)(&k.address),
	} {
		derived, err := hkdf.Key(sha256.New, private, nil, label, len(key))
		if err != nil {
			return k, fmt.Errorf("deriving the transport's keys: %w", err)
		}
		*key = [32]byte(derived)
	}
	return k, nil
}
