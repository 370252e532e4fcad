package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// Config is what an authority is asked for, and by whom.
type Config struct {
	// Domain is the one name.
	Domain string
	// Dir is where the keys and the chain are kept.
	Dir string
	// Directory is the authority's URL; empty is Let's Encrypt's.
	Directory string
	// Roots authenticate the authority; nil is the system's.
	Roots *x509.CertPool
	// Contact is an address for the authority's warnings; empty is none.
	Contact string
	Logger  *slog.Logger
	Rand    io.Reader
	Clock   func() time.Time
	// Wait waits so long, or until the context ends; nil is a timer.
	Wait func(context.Context, time.Duration) error
}

const (
	// orderTime is the longest that one attempt takes.
	orderTime = 5 * time.Minute
	// A failure is tried again after the first, then after twice as long each
	// time: authorities count failures by the hour.
	firstRetry, lastRetry = time.Minute, 6 * time.Hour
	// look is how often the wall clock is read while nothing is due: timers do not
	// run while a machine sleeps.
	look = time.Hour
	// renewPart of its life before its end a certificate is renewed.
	renewPart = 3
)

// The refusals.
var (
	ErrDomain   = errors.New("a domain is a DNS name of at least two labels, in lower case")
	errNone     = errors.New("no certificate was issued yet")
	errOver     = errors.New("the certificate has expired")
	errNotAsked = errors.New("no such challenge is open")
)

var domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])$`)

// Certificates is a name's certificate, now and later: Open reads what is kept,
// Run keeps it current.
type Certificates struct {
	cfg    Config
	key    *ecdsa.PrivateKey
	client *acme.Client

	mu        sync.Mutex // guards what is below
	shown     *tls.Certificate
	issued    bool // shown is an authority's
	challenge *tls.Certificate
	failure   error // of the last attempt
}

// Open reads what is kept in the folder, and makes the keys the first time. It
// asks nobody.
func Open(cfg Config) (*Certificates, error) {
	if !domainName.MatchString(cfg.Domain) || len(cfg.Domain) > 253 || net.ParseIP(cfg.Domain) != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Domain, ErrDomain)
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	account, err := keepKey(cfg.Dir, accountFile, cfg.Rand)
	if err != nil {
		return nil, fmt.Errorf("the authority's account: %w", err)
	}
	key, err := keepKey(cfg.Dir, keyFile, cfg.Rand)
	if err != nil {
		return nil, fmt.Errorf("the certificate's key: %w", err)
	}
	c := &Certificates{cfg: cfg, key: key, client: newClient(cfg, account)}
	if c.shown, err = selfSigned(key, cfg.Domain, cfg.Rand, cfg.Clock()); err != nil {
		return nil, err
	}
	chain, err := readChain(cfg.Dir)
	if err == nil && chain != nil {
		err = c.take(chain)
	}
	if err != nil { // another domain's, or spoiled: a new one is asked for
		cfg.Logger.Warn("kept certificate not taken", "error", err)
	}
	return c, nil
}

func newClient(cfg Config, account *ecdsa.PrivateKey) *acme.Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: time.Minute,
	}
	return &acme.Client{
		Key: account, DirectoryURL: cfg.Directory, UserAgent: "openscope-relay",
		HTTPClient: &http.Client{Transport: transport, Timeout: time.Minute},
	}
}

// Get is the certificate to show. Until an authority has issued one it is
// self-signed, with the same key: whoever pins the key is served already, and
// everybody else turns away.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown, nil
}

// Challenge is the answer to the authority's question, while there is one.
func (c *Certificates) Challenge(who *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.challenge == nil || who.ServerName != c.cfg.Domain {
		return nil, errNotAsked
	}
	return c.challenge, nil
}

// Ready says why peers that know the relay by its name cannot be served, or nil.
func (c *Certificates) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.issued:
		return errors.Join(errNone, c.failure)
	case !c.cfg.Clock().Before(c.shown.Leaf.NotAfter):
		return errors.Join(errOver, c.failure)
	}
	return nil
}

// Run has the certificate issued when it is due, until the context ends. What
// fails is logged, and tried again; the old certificate is shown on.
func (c *Certificates) Run(ctx context.Context) {
	retry := firstRetry
	for {
		for due := c.due(); due > 0; due = c.due() {
			if c.cfg.Wait(ctx, min(due, look)) != nil {
				return
			}
		}
		err := c.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := lastRetry // also where what was issued is due already: a clock is wrong then
		if err == nil {
			retry = firstRetry
		} else {
			pause, retry = retry, min(2*retry, lastRetry)
			c.cfg.Logger.Error("certificate not renewed", "domain", c.cfg.Domain, "error", err, "retry_s", pause.Seconds())
		}
		if c.cfg.Wait(ctx, pause) != nil {
			return
		}
	}
}

// due is how long the certificate need not be renewed.
func (c *Certificates) due() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.issued {
		return 0
	}
	life := c.shown.Leaf.NotAfter.Sub(c.shown.Leaf.NotBefore)
	return c.shown.Leaf.NotAfter.Add(-life / renewPart).Sub(c.cfg.Clock())
}

func (c *Certificates) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	chain, err := c.order(ctx)
	if err == nil {
		err = c.take(chain)
	}
	if err == nil {
		err = writeChain(c.cfg.Dir, chain)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = err
	if err == nil {
		c.cfg.Logger.Info("certificate issued", "domain", c.cfg.Domain, "until", c.shown.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return err
}

// take shows a chain from now on, if it is this name's, this key's, and now's.
func (c *Certificates) take(chain [][]byte) error {
	if len(chain) == 0 {
		return errNone
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	if err := leaf.VerifyHostname(c.cfg.Domain); err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	if !c.key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("reading the certificate: it is another key's")
	}
	if now := c.cfg.Clock(); now.After(leaf.NotAfter) {
		return fmt.Errorf("reading the certificate: %w", errOver)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown, c.issued = &tls.Certificate{Certificate: chain, PrivateKey: c.key, Leaf: leaf}, true
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
