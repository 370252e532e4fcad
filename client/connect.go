package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/report"
	"openscope/wire/tunnel"
)

// Config is what a client connects with.
type Config struct {
	// Handle names the session. Its fingerprint must have been confirmed by a
	// person, or be a known one, before Connect is called.
	Handle handle.Handle
	// Identity is the recipient's own; a bearer handle needs none.
	Identity *handle.RecipientIdentity
	// StateDir is where the claims of bearer sessions are kept.
	StateDir string
	// Roots authenticate a relay without a pin; nil means the system's.
	Roots *x509.CertPool
	// Proxy is the way out through an HTTP proxy, where there is one.
	Proxy  Proxy
	Rand   io.Reader
	Logger *slog.Logger // nil discards
	// Join reaches the session; nil means [tunnel.Join].
	Join func(context.Context, tunnel.ClientConfig) (wire.Leg, error)
	// OnNotice and OnPassport, where set, are told of what comes unasked. They
	// must not block.
	OnNotice   func(*Session, call.Notice)
	OnPassport func(*passport.Passport)
	// OnReceipt, where set, is told of each result that the daemon signed, by the
	// goroutine that made the call: see [Receipts].
	OnReceipt func(report.Receipt)
	// Redial lets the session outlive its connection: a lost one is made again,
	// and running calls go on there (wire/README.md §8). Without it the session
	// is over with its connection.
	Redial bool
	// OnConnection, where set, is told when the connection was lost, and why, and
	// with nil when another stands. It must not block.
	OnConnection func(lost error)
}

// Proxy says through which HTTP proxy relays are reached.
type Proxy = tunnel.ProxySettings

// ProxyFromEnvironment reads HTTPS_PROXY and NO_PROXY.
func ProxyFromEnvironment(getenv func(string) string) Proxy {
	return tunnel.ProxyFromEnvironment(getenv)
}

// ImpostorError says that somebody else answered for the relay: a proxy that
// intercepts TLS, most likely.
type ImpostorError = tunnel.ImpostorError

// Refused, a client tries again for so long: the daemon may be about to
// register anew at a relay that was restarted (wire/README.md §3).
const (
	retryFor   = 20 * time.Second
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

var (
	// ErrRefused: every relay answered, and none knows the session.
	ErrRefused = errors.New("no relay has the session: it may be over")
	// ErrUnreachable: no relay answered.
	ErrUnreachable = tunnel.ErrUnreachable
	// ErrProxySettings: the proxy of the configuration is none.
	ErrProxySettings = tunnel.ErrProxySettings
	// ErrWrongDaemon: whoever answered is not the daemon of the handle.
	ErrWrongDaemon = channel.ErrWrongDaemon
	// ErrNotForThisKey: the handle was edited, or sealed to somebody else.
	ErrNotForThisKey = channel.ErrNotForThisKey
	// ErrNoIdentity: a sealed handle needs the recipient's key.
	ErrNoIdentity = errors.New("the handle is sealed to a key, and there is none")
)

// OverError says that the session has ended, and why: the daemon's own word,
// under the session's keys.
type OverError struct {
	Cause  call.Cause
	Reason string // may be empty
}

func (e *OverError) Error() string {
	if e.Reason == "" {
		return "the session is over: " + e.Cause.String()
	}
	return "the session is over: " + e.Cause.String() + ": " + e.Reason
}

// Connect reaches the session and returns once the passport is verified. A
// session that is over is an *OverError.
func Connect(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.Join == nil {
		cfg.Join = tunnel.Join
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	keys, err := cfg.keys()
	if err != nil {
		return nil, err
	}
	proxies, err := tunnel.NewProxies(cfg.Proxy)
	if err != nil {
		return nil, err
	}
	ways := tunnel.Ways{Proxies: proxies, Known: new(tunnel.Known)}
	until := time.Now().Add(retryFor)
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		s, err := cfg.connectOnce(ctx, keys, ways)
		if !again(err) || time.Now().After(until) {
			return s, told(err)
		}
		cfg.Logger.Debug("trying again", "error", err)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), told(err))
		}
	}
}

func (cfg *Config) connectOnce(ctx context.Context, keys *channel.Keys, ways tunnel.Ways) (*Session, error) {
	signer, claim, err := cfg.signer()
	if err != nil {
		return nil, err
	}
	r := &reach{cfg: cfg, keys: keys, ways: ways, signer: signer, relays: cfg.Handle.Relays, beforeFinished: claim}
	a, err := r.attempt(ctx)
	if err != nil {
		return nil, err
	}
	r.beforeFinished = nil // the claim is made
	s := newSession(r, a)
	s.start()
	return s, nil
}

// again reports whether an attempt may go better the next time.
func again(err error) bool {
	return errors.Is(err, wire.ErrRefused) || errors.Is(err, wire.ErrDraining) ||
		errors.Is(err, wire.ErrSuperseded) || errors.Is(err, errClaimed)
}

// told is an error of the last attempt as the caller should have it.
func told(err error) error {
	if errors.Is(err, wire.ErrRefused) {
		return ErrRefused
	}
	return err
}

// keys opens the handle's secret, before any packet is sent.
func (cfg *Config) keys() (*channel.Keys, error) {
	h := cfg.Handle
	if !h.Sealed {
		return channel.NewKeys(h.Secret), nil
	}
	if cfg.Identity == nil {
		return nil, ErrNoIdentity
	}
	secret, err := channel.OpenSecret(cfg.Identity.X25519(), h.Header(), h.Enc, h.Box)
	if err != nil {
		return nil, fmt.Errorf("opening the handle: %w", err)
	}
	return channel.NewKeys(secret), nil
}

// reach is what a session is reached with, the first time and again.
type reach struct {
	cfg            *Config
	keys           *channel.Keys
	ways           tunnel.Ways
	relays         []wire.Relay // of the handle, in the order to try them in
	signer         wire.SigningKey
	beforeFinished func() error
	takeOver       func() ([16]byte, []channel.Resume)
}

// by connects once by the given relay, and returns when the passport is verified.
func (r *reach) by(ctx context.Context, relay wire.Relay, beforeFinished func() error) (arrival, error) {
	cfg := r.cfg
	leg, err := cfg.Join(ctx, tunnel.ClientConfig{
		Relays: []wire.Relay{relay}, Roots: cfg.Roots, RID: cfg.Handle.RID, Logger: cfg.Logger, Ways: r.ways,
		Sign: func(exporter [32]byte) []byte { return wire.SignJoin(r.keys.JoinKey(), exporter, cfg.Handle.RID) },
	})
	if err != nil {
		return arrival{}, fmt.Errorf("reaching the relay: %w", err)
	}
	h := r.handshake()
	h.BeforeFinished = beforeFinished
	conn, err := channel.Client(ctx, leg, h)
	if err != nil {
		return arrival{}, err
	}
	p, err := r.welcome(ctx, conn)
	if err != nil {
		conn.Reset()
		return arrival{}, err
	}
	return arrival{conn: conn, passport: p, relay: relay, rung: rungOf(leg)}, nil
}

// signer is the key that FINISHED and every call is signed with: the
// recipient's, or a bearer session's claim with what makes it durable.
func (cfg *Config) signer() (wire.SigningKey, func() error, error) {
	if cfg.Handle.Sealed {
		return wire.SigningKeyOf(cfg.Identity.Ed25519()), nil, nil
	}
	return cfg.claim()
}

func (r *reach) handshake() channel.ClientConfig {
	cfg := r.cfg
	h := channel.ClientConfig{
		Mode: channel.Bearer, RID: cfg.Handle.RID, HandleHash: cfg.Handle.Hash(), Fingerprint: cfg.Handle.Fingerprint,
		Keys: r.keys, Signer: r.signer, TakeOver: r.takeOver, Rand: cfg.Rand,
	}
	if cfg.Handle.Sealed {
		h.Mode, h.Recipient = channel.Sealed, cfg.Identity.X25519
	}
	return h
}

// welcome reads what follows READY at once: the passport, or CLOSE.
func (r *reach) welcome(ctx context.Context, conn *channel.Conn) (*passport.Passport, error) {
	stop := context.AfterFunc(ctx, conn.Reset)
	defer stop()
	t, body, err := conn.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the passport: %w", err)
	}
	switch t {
	case channel.TypeClose:
		closed, err := call.ParseClose(body)
		if err != nil {
			return nil, err
		}
		_ = conn.CloseWrite() // the daemon waits for it, but not for long
		return nil, &OverError{Cause: closed.Cause, Reason: closed.Text}
	case channel.TypePassport:
		return r.verify(conn, body)
	}
	return nil, fmt.Errorf("%w: record %d instead of the passport", errProtocol, t)
}

// verify takes a passport only if its signature, its session, its subject and
// its daemon are right.
func (r *reach) verify(conn *channel.Conn, body []byte) (*passport.Passport, error) {
	signed := append(passport.Signed(nil), body...)
	p, err := passport.Verify(signed, conn.DaemonKey())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if err := p.CheckFor(r.cfg.Handle.RID, r.signer.Public()); err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if p.Daemon != channel.Fingerprint(conn.DaemonKey()) {
		return nil, fmt.Errorf("%w: the passport is from another daemon", errProtocol)
	}
	return p, nil
}
