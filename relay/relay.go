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
	// Challenge, where set, answers a certificate authority that asks on TCP
	// whether the name is this relay's (TLS-ALPN-01, RFC 8737).
	Challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Conn is the socket; the relay closes it.
	Conn net.PacketConn
	// Listener, where set, takes TCP connections, on the port of Conn; the relay
	// closes it.
	Listener net.Listener
	// Tokens says which deployments may stand here.
	Tokens Tokens
	// PublicAddress is this node's own host:port for handles; empty means the
	// one that daemons dialed.
	PublicAddress string
	Logger        *slog.Logger
	Clock         func() time.Time
	// Limits bound what peers can take; the zero value is the defaults.
	Limits Limits
	// Memory says how much the process holds; nil asks the runtime.
	Memory func() int64
	// DrainTime is how long Run lets running sessions go on after its context has
	// ended; zero ends them at once.
	DrainTime time.Duration
	// Tap is told the size and time of everything forwarded; nil in production.
	Tap Tap
}

// Tokens are the deployment tokens that are taken now. Lookup is asked at every
// hello, and several times a second for each token in use: a token that is no
// longer there, or has expired, loses its connections.
type Tokens interface {
	Lookup(id wire.TokenID) (Deployment, bool)
}

// Deployment is what a relay knows of a deployment token.
type Deployment struct {
	Public ed25519.PublicKey
	Limits TokenLimits
}

// Tap sees what a relay sees.
type Tap interface {
	Forwarded(leg uint64, up bool, n int, at time.Time)
}

const (
	// tokenCheck is how often tokens in use are looked up again: a revoked one's
	// connections end well within a second.
	tokenCheck = 250 * time.Millisecond
	// sweepEvery is how often what nobody needs any more is forgotten.
	sweepEvery = 10 * time.Second
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
	door      *door
	accounts  *accounts
	budget    *budget
	pauses    pauses
	counters  counters
	children  sync.WaitGroup
	ready     chan struct{}
}

// Ready is closed once peers are taken.
func (r *Relay) Ready() <-chan struct{} { return r.ready }

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
	if cfg.Memory == nil {
		cfg.Memory = memoryInUse
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Relay{
		cfg: cfg, logger: cfg.Logger, registry: newRegistry(), door: newDoor(cfg.Limits),
		accounts: newAccounts(cfg.Limits.Token, cfg.Clock), budget: newBudget(cfg.Limits.Buffered),
		ready: make(chan struct{}),
	}, nil
}

// Run serves until the context ends, drains, and returns when every goroutine
// has ended.
func (r *Relay) Run(ctx context.Context) error {
	defer r.cfg.Conn.Close()
	if r.cfg.Listener != nil {
		defer r.cfg.Listener.Close()
	}
	keys, err := r.deriveKeys()
	if err != nil {
		return err
	}
	r.transport = &quic.Transport{
		Conn:                tunnel.Trains(r.cfg.Conn, r.keep),
		StatelessResetKey:   &keys.reset,
		TokenGeneratorKey:   &keys.address,
		VerifySourceAddress: r.verifyAddress,
		ConnContext:         r.greet,
	}
	defer r.transport.Close()
	listener, err := r.transport.Listen(r.serverTLS(), tunnel.Config(peerStreams, peerStreams+tunnel.MaxDaemonStreams))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	r.logger.Info("relay listening", "address", r.cfg.Conn.LocalAddr().String(), "tcp", r.cfg.Listener != nil)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.children.Go(func() { r.tend(serving) })
	close(r.ready)
	accepted := make(chan error, 2)
	r.children.Go(func() { accepted <- r.accept(serving, listener) })
	if r.cfg.Listener != nil {
		r.children.Go(func() { accepted <- r.acceptTCP(serving) })
	}
	select {
	case err = <-accepted:
		r.registry.drain()
	case <-ctx.Done():
		r.drain()
	}
	stop()
	_ = listener.Close() // ends the accept loop; there is nothing to report
	if r.cfg.Listener != nil {
		_ = r.cfg.Listener.Close()
	}
	r.children.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serverTLS is the same on every rung.
func (r *Relay) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{wire.ALPN},
		GetCertificate:         r.cfg.Certificate,
		GetConfigForClient:     awaitTurn,
		SessionTicketsDisabled: true,
	}
}

// drain refuses what is new, lets daemons without a running leg go elsewhere at
// once, and waits for the others as long as the drain time is.
func (r *Relay) drain() {
	r.registry.drain()
	if r.cfg.DrainTime <= 0 {
		return
	}
	r.logger.Info("relay draining", "limit", r.cfg.DrainTime.String(), "legs", r.Stats().Legs)
	limit, tick := time.NewTimer(r.cfg.DrainTime), time.NewTicker(drainCheck)
	defer limit.Stop()
	defer tick.Stop()
	for r.registry.legsStand() {
		for _, d := range r.registry.idle() {
			r.children.Go(func() { d.conn.Close(tunnel.CodeDraining) })
		}
		select {
		case <-tick.C:
		case <-limit.C:
			r.logger.Warn("drain time over", "legs", r.Stats().Legs)
			return
		}
	}
}

// drainCheck is how often draining looks whether a daemon's last leg has ended.
const drainCheck = 100 * time.Millisecond

// accept ends when the listener is closed, and not before: who was waiting to be
// accepted then is accepted, and told to go elsewhere. The transport, which ends
// next, would tell them nothing.
func (r *Relay) accept(ctx context.Context, listener *quic.Listener) error {
	for {
		conn, err := listener.Accept(context.WithoutCancel(ctx))
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		r.counters.accepted.Add(1)
		if v, ok := conn.Context().Value(visitKey{}).(*visit); ok {
			v.done()
		}
		r.children.Go(func() { r.serveQUIC(ctx, conn) })
	}
}

func (r *Relay) serveQUIC(ctx context.Context, raw *quic.Conn) {
	conn, err := tunnel.OverQUIC(raw)
	if err != nil {
		_ = raw.CloseWithError(tunnel.CodeRefused, "")
		return
	}
	r.serve(ctx, conn)
}

// visitKey is where a connection's context has its visit.
type visitKey struct{}

// greet is quic-go's question whether a handshake may begin. A refusal costs
// one packet, and no cryptography.
func (r *Relay) greet(ctx context.Context, who *quic.ClientInfo) (context.Context, error) {
	v, err := r.door.enter(who.RemoteAddr)
	if err != nil {
		r.counters.crowd.Add(1)
		return nil, err
	}
	context.AfterFunc(ctx, v.leave) // its end is the connection's
	return context.WithValue(ctx, visitKey{}, v), nil
}

// awaitTurn holds a handshake back, before its cryptography, until its turn has
// come (pace). It changes no configuration.
func awaitTurn(who *tls.ClientHelloInfo) (*tls.Config, error) {
	v, ok := who.Context().Value(visitKey{}).(*visit)
	if !ok {
		return nil, nil
	}
	return nil, v.await(who.Context())
}

// verifyAddress has every newcomer prove its address (Retry), for one round
// trip. Without it an address that never answers gets up to a packet more than
// three times what was sent in its name, and forged addresses would fill the
// limits of those they belong to.
func (r *Relay) verifyAddress(net.Addr) bool {
	r.counters.retried.Add(1)
	return true
}

// tend ends the connections of tokens that are no longer taken, and forgets
// what nobody needs.
func (r *Relay) tend(ctx context.Context) {
	check, sweep := time.NewTicker(tokenCheck), time.NewTicker(sweepEvery)
	var forwarded uint64
	defer check.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			r.checkTokens()
			r.guard()
			before := forwarded
			forwarded = r.counters.up.Load() + r.counters.down.Load()
			if forwarded-before > yieldTo*uint64(tokenCheck)/uint64(time.Second) {
				r.door.pace.yield(time.Now())
			}
		case <-sweep.C:
			r.registry.sweep(r.cfg.Clock())
			r.door.sweep(time.Now())
			r.accounts.sweep()
		}
	}
}

// checkTokens looks every token in use up once.
func (r *Relay) checkTokens() {
	for token, daemons := range r.registry.byToken() {
		now, ok := r.cfg.Tokens.Lookup(token)
		for _, d := range daemons {
			if !ok || !now.Public.Equal(d.public) {
				r.counters.revoked.Add(1)
				r.children.Go(func() { d.conn.Close(tunnel.CodeRefused) }) // it may take its time
				continue
			}
			d.account.set(now.Limits.or(r.cfg.Limits.Token))
		}
	}
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
