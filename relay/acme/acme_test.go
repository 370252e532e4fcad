package acme_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/relay"
	"openscope/relay/acme"
	"openscope/wire"
)

const domain = "relay.openscope.test"

// host is a relay with a certificate of its own domain, and the test's clock.
type host struct {
	t            *testing.T
	dir          string
	address      string
	certificates *acme.Certificates
	log          *log

	mu     sync.Mutex
	ahead  time.Duration      // of the machine's clock
	waits  chan time.Duration // what Run waits for
	resume chan struct{}      // ends a wait
}

type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (h *host) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.ahead)
}

// later is that much later from here on.
func (h *host) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += d
}

func (h *host) wait(ctx context.Context, d time.Duration) error {
	select {
	case h.waits <- d:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-h.resume:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waiting returns what Run waits for next.
func (h *host) waiting() time.Duration {
	h.t.Helper()
	select {
	case d := <-h.waits:
		return d
	case <-time.After(patience):
		h.t.Fatalf("no end of an attempt: %s", h.log.text())
		return 0
	}
}

// newHost runs a relay on a port of its own; its certificate is not asked for
// before certify.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), log: new(log), waits: make(chan time.Duration), resume: make(chan struct{})}
	return h
}

// open reads what is kept.
func (h *host) open(a *authority) {
	h.t.Helper()
	cfg := acme.Config{
		Domain: domain, Dir: h.dir, Contact: "operator@openscope.test", Rand: rand.Reader, Clock: h.now, Wait: h.wait,
		Logger: slog.New(slog.NewTextHandler(h.log, nil)),
	}
	if a != nil {
		cfg.Directory, cfg.Roots = a.directory, a.trusted(h.t)
	}
	var err error
	if h.certificates, err = acme.Open(cfg); err != nil {
		h.t.Fatal(err)
	}
}

// serve runs the relay on the sockets until the test ends.
func (h *host) serve(conn net.PacketConn, listener net.Listener) {
	h.t.Helper()
	tokens, err := relay.OpenTokenFile(filepath.Join(h.dir, "tokens"))
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := relay.New(relay.Config{
		Certificate: h.certificates.Get, Challenge: h.certificates.Challenge, Conn: conn, Listener: listener, Tokens: tokens,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = listener.Addr().String()
	h.until(func(ctx context.Context) {
		if err := r.Run(ctx); err != nil {
			h.t.Error(err)
		}
	})
}

// until runs it until the test ends.
func (h *host) until(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	h.t.Cleanup(func() { cancel(); running.Wait() })
}

// shown is the certificate that a peer is shown, by QUIC and by TCP, and whether
// one that knows the domain takes it.
func (h *host) shown(roots *x509.CertPool) (leaf *x509.Certificate, err error) {
	h.t.Helper()
	var seen []*x509.Certificate
	cfg := &tls.Config{
		ServerName: domain, RootCAs: roots, NextProtos: []string{wire.ALPN}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // verified below, by the test's clock
		VerifyConnection: func(state tls.ConnectionState) error {
			seen = append(seen, state.PeerCertificates[0])
			options := x509.VerifyOptions{DNSName: domain, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: h.now()}
			for _, c := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	over, errTCP := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", h.address)
	if errTCP == nil {
		defer over.Close()
	}
	by, errQUIC := quic.DialAddr(ctx, h.address, cfg, &quic.Config{})
	if errQUIC == nil {
		defer func() { _ = by.CloseWithError(0, "") }()
	}
	if len(seen) != 2 || !seen[0].Equal(seen[1]) || (errTCP == nil) != (errQUIC == nil) {
		h.t.Fatalf("%d certificates were shown: %v, %v", len(seen), errTCP, errQUIC)
	}
	return seen[0], errTCP
}

func (h *host) private() {
	h.t.Helper()
	for _, name := range []string{"acme.key", "acme-account.key", "acme.pem"} {
		if info, err := os.Stat(filepath.Join(h.dir, name)); err != nil || info.Mode() != 0o600 {
			h.t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// The whole life of a certificate at a real authority: issued, renewed when a
// third of its life is left, kept when the authority is away, and there again
// after a restart.
func TestACertificateIsIssuedAndRenewed(t *testing.T) {
	t.Parallel()
	conn, listener, err := relay.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := startAuthority(t, listener.Addr().(*net.TCPAddr).Port)
	h := newHost(t)
	h.open(a)
	h.serve(conn, listener)
	placeholder, err := h.shown(a.roots)
	if err == nil || h.certificates.Ready() == nil {
		t.Fatal("before anything was issued, a peer that knows the domain takes the relay")
	}
	pin := wire.PinOf(placeholder)

	h.until(h.certificates.Run)
	if d := h.waiting(); d != 6*time.Hour {
		t.Fatalf("issued, it waits for %v: %s", d, h.log.text())
	}
	first, err := h.shown(a.roots)
	if err != nil || h.certificates.Ready() != nil || wire.PinOf(first) != pin {
		t.Fatalf("issued, it is not taken: %v, %v", err, h.certificates.Ready())
	}
	h.private()
	h.later(59 * 24 * time.Hour)
	if h.resume <- struct{}{}; h.waiting() != time.Hour || strings.Count(h.log.text(), "certificate issued") != 1 {
		t.Fatal("it was renewed after 59 of 90 days")
	}
	h.later(2 * 24 * time.Hour)
	h.resume <- struct{}{}
	h.waiting()
	second, err := h.shown(a.roots)
	if err != nil || second.Equal(first) || wire.PinOf(second) != pin {
		t.Fatalf("after 61 of 90 days it is the same certificate, or another key: %v: %s", err, h.log.text())
	}
	h.losesItsAuthority(a, second)
}

// losesItsAuthority has the authority gone when the certificate is due again.
func (h *host) losesItsAuthority(a *authority, last *x509.Certificate) {
	t := h.t
	t.Helper()
	a.stop()
	h.resume <- struct{}{}
	for _, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		if d := h.waiting(); d != want || !strings.Contains(h.log.text(), "certificate not renewed") {
			t.Fatalf("after a failure it waits for %v, not %v: %s", d, want, h.log.text())
		}
		if leaf, err := h.shown(a.roots); err != nil || !leaf.Equal(last) || h.certificates.Ready() != nil {
			t.Fatalf("the certificate that is still good is not shown: %v, %v", err, h.certificates.Ready())
		}
		h.resume <- struct{}{}
	}
	h.waiting()

	again := newHost(t) // a relay that is started meanwhile asks nobody
	again.dir = h.dir
	again.open(nil)
	if kept, err := again.certificates.Get(nil); err != nil || !kept.Leaf.Equal(last) || again.certificates.Ready() != nil {
		t.Errorf("after a restart: %v, %v", err, again.certificates.Ready())
	}
	h.later(60 * 24 * time.Hour)
	if err := h.certificates.Ready(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a relay whose certificate has ended is %v", err)
	}
}

// An authority that asks somewhere else gets no answer: nothing is issued, and
// the relay says so.
func TestANameThatLeadsElsewhereIsNotCertified(t *testing.T) {
	t.Parallel()
	conn, listener, err := relay.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := startAuthority(t, freePort(t))
	h := newHost(t)
	h.open(a)
	h.serve(conn, listener)
	h.until(h.certificates.Run)
	if d := h.waiting(); d != time.Minute {
		t.Fatalf("it waits for %v", d)
	}
	if err := h.certificates.Ready(); err == nil || !strings.Contains(h.log.text(), "proving the name") {
		t.Errorf("%v: %s", err, h.log.text())
	}
	if _, err := h.shown(a.roots); err == nil {
		t.Error("a peer that knows the domain takes it")
	}
}

// Whoever asks as an authority does, and is none, gets nothing.
func TestStrangersGetNoChallenge(t *testing.T) {
	t.Parallel()
	conn, listener, err := relay.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.open(nil)
	h.serve(conn, listener)
	for _, name := range []string{domain, "other.test"} {
		peer, err := tls.Dial("tcp", h.address, &tls.Config{ServerName: name, NextProtos: []string{acme.Protocol}, InsecureSkipVerify: true})
		if err == nil {
			peer.Close()
			t.Errorf("%s was answered", name)
		}
	}
	peer, err := tls.Dial("tcp", h.address, &tls.Config{ServerName: domain, NextProtos: []string{wire.ALPN, acme.Protocol}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if p := peer.ConnectionState().NegotiatedProtocol; p != wire.ALPN {
		t.Errorf("who offers both speaks %q", p)
	}
}

func TestWhatIsKeptMustBeThisRelays(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) error{
		"no certificate": func(dir string) error { return os.WriteFile(filepath.Join(dir, "acme.pem"), []byte("none"), 0o600) },
		"another key's": func(dir string) error {
			return os.Rename(filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "acme.pem"))
		},
		"not even a file":  func(dir string) error { return os.Mkdir(filepath.Join(dir, "acme.pem"), 0o700) },
		"there is nothing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if _, _, err := relay.SelfSigned(h.dir, rand.Reader, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := spoil(h.dir); err != nil {
				t.Fatal(err)
			}
			h.open(nil)
			if h.certificates.Ready() == nil {
				t.Error("it is ready")
			}
			if warned := strings.Contains(h.log.text(), "kept certificate not taken"); warned == (name == "there is nothing") {
				t.Errorf("the log says: %q", h.log.text())
			}
		})
	}
	for _, name := range []string{"acme.key", "acme-account.key"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("spoiled"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := acme.Open(acme.Config{Domain: domain, Dir: dir, Rand: rand.Reader, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("a spoiled %s is taken, or was replaced", name)
		}
	}
}

func TestADomainIsADNSName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "relay", "192.0.2.1", "Relay.example.com", "relay.example.com.", "*.example.com", "-a.example.com",
		"a..b", "relay.example.com:443", "a b.example.com", strings.Repeat("a.", 127) + "com", strings.Repeat("a", 64) + ".com"} {
		dir := t.TempDir()
		if _, err := acme.Open(acme.Config{Domain: name, Dir: dir}); !errors.Is(err, acme.ErrDomain) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "acme.key")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: a key was made", name)
		}
	}
}
