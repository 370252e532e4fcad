package relay_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// patience is how long a test waits for what is promised to happen at once.
const patience = 10 * time.Second

// node is a relay that runs, and its state directory.
type node struct {
	t       testing.TB
	dir     string
	tokens  *relay.TokenFile
	address string
	pin     wire.Pin
	socket  *socket
	by      rungs
	running *relay.Relay
	cancel  context.CancelFunc
	ended   chan struct{} // closed when Run has returned
	err     error         // of Run
}

// socket is a relay's, which a test can make silent, as that of a process that
// was killed is.
type socket struct {
	*net.UDPConn
	silent atomic.Bool
}

func (s *socket) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.silent.Load() {
		return len(p), nil
	}
	return s.UDPConn.WriteTo(p, to)
}

func (s *socket) WriteMsgUDP(p, control []byte, to *net.UDPAddr) (int, int, error) {
	if s.silent.Load() {
		return len(p), len(control), nil
	}
	return s.UDPConn.WriteMsgUDP(p, control, to)
}

// rungs are how the two ends of a test reach the relay. The zero value is QUIC.
type rungs struct{ client, daemon tunnel.Rung }

// onEveryRung runs the test for each way in which the ends can reach a relay.
func onEveryRung(t *testing.T, test func(*testing.T, rungs)) {
	t.Parallel()
	for _, by := range []rungs{{tunnel.QUIC, tunnel.QUIC}, {tunnel.TCP, tunnel.QUIC}, {tunnel.QUIC, tunnel.TCP}, {tunnel.TCP, tunnel.TCP}} {
		t.Run(by.client.String()+" to "+by.daemon.String(), func(t *testing.T) {
			t.Parallel()
			test(t, by)
		})
	}
}

// startNode runs a relay from a directory of its own until the test ends.
func startNode(t *testing.T, change ...func(*relay.Config)) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	n.start(change...)
	return n
}

// start runs the relay of the directory, at the address it had before if it ran.
func (n *node) start(change ...func(*relay.Config)) {
	n.t.Helper()
	certificate, pin, err := relay.SelfSigned(n.dir, rand.Reader, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	if n.tokens, err = relay.OpenTokenFile(filepath.Join(n.dir, "tokens.json")); err != nil {
		n.t.Fatal(err)
	}
	conn, listener, err := relay.Listen(n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.pin, n.address, n.socket = pin, conn.LocalAddr().String(), &socket{UDPConn: conn.(*net.UDPConn)}
	cfg := relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:        n.socket, Listener: listener, Tokens: n.tokens,
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := relay.New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n.running, n.cancel, n.ended = r, cancel, ended
	go func() {
		defer close(ended)
		n.err = r.Run(ctx)
	}()
	n.t.Cleanup(n.stop)
}

// stop ends the relay's context and waits for Run.
func (n *node) stop() {
	n.cancel()
	select {
	case <-n.ended:
		if n.err != nil {
			n.t.Errorf("the relay ended with %v", n.err)
		}
	case <-time.After(patience):
		n.t.Error("the relay runs on after its context ended")
	}
}

// kill stops the relay without a word to anybody.
func (n *node) kill() {
	n.socket.silent.Store(true)
	n.stop()
}

func (n *node) relay() wire.Relay { return wire.Relay{Address: n.address, Pin: &n.pin} }

// token adds a token of that name.
func (n *node) token(name string) wire.Token {
	n.t.Helper()
	token, err := n.tokens.Add(name, rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

func prove(token wire.Token) func([32]byte) (wire.TokenID, []byte, error) {
	return func(exporter [32]byte) (wire.TokenID, []byte, error) {
		return token.ID(), token.SignHello(exporter), nil
	}
}

func (n *node) daemonConfig(token wire.Token) tunnel.DaemonConfig {
	return tunnel.DaemonConfig{Relay: n.relay(), Prove: prove(token), Ways: tunnel.Ways{Only: []tunnel.Rung{n.by.daemon}}}
}

// daemon connects one with the token, until the test ends.
func (n *node) daemon(token wire.Token) *tunnel.Daemon {
	n.t.Helper()
	d, err := tunnel.DialDaemon(within(n.t, patience), n.daemonConfig(token))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = d.Close() })
	return d
}

// within is a context for one thing that a test waits for.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, limit time.Duration, what string, yes func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !yes() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v, still not: %s", limit, what)
		}
	}
}

// session is the keys of one, as its daemon and its client know them.
type session struct {
	register, join ed25519.PrivateKey
	rid            wire.RendezvousID
}

func newSession(t testing.TB) session {
	t.Helper()
	_, register, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, join, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return session{register, join, wire.NewRendezvousID(public(register), public(join))}
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// registration is the session's, signed for the connection with this exporter.
func (s session) registration(exporter [32]byte) wire.Register {
	return wire.SignRegister(s.register, exporter, wire.Register{
		RID: s.rid, RegisterKey: public(s.register), JoinKey: public(s.join), Lifetime: 30 * time.Minute,
	})
}

// standOn registers the session with the daemon.
func (s session) standOn(t testing.TB, d *tunnel.Daemon) session {
	t.Helper()
	if err := d.Register(within(t, patience), s.registration(d.Exporter())); err != nil {
		t.Fatal(err)
	}
	return s
}

// settled returns when the relay has done what the daemon told it before: it
// answers in order.
func settled(t *testing.T, d *tunnel.Daemon) {
	t.Helper()
	newSession(t).standOn(t, d)
}

// client is a client's end of a leg that is reset with the test's end.
func (n *node) client(s session) wire.Leg {
	n.t.Helper()
	return n.clientSigning(s.rid, func(exporter [32]byte) []byte { return wire.SignJoin(s.join, exporter, s.rid) })
}

func (n *node) clientSigning(rid wire.RendezvousID, sign func([32]byte) []byte) wire.Leg {
	n.t.Helper()
	l, err := tunnel.Join(within(n.t, patience), tunnel.ClientConfig{
		Relays: []wire.Relay{n.relay()}, RID: rid, Sign: sign, Ways: tunnel.Ways{Only: []tunnel.Rung{n.by.client}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(l.Reset)
	return timed(n.t, l)
}

// timed gives whatever a test does with the leg an end.
func timed(t testing.TB, l wire.Leg) wire.Leg {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	if err := errors.Join(l.SetReadDeadline(deadline), l.SetWriteDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	return l
}

// accepted is the daemon's end of the next leg.
func accepted(t testing.TB, d *tunnel.Daemon) (wire.Preface, wire.Leg) {
	t.Helper()
	preface, l, err := d.Accept(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Reset)
	return preface, timed(t, l)
}

// pair is both ends of one leg.
func (n *node) pair(s session, d *tunnel.Daemon) (client, daemon wire.Leg, preface wire.Preface) {
	n.t.Helper()
	client = n.client(s)
	preface, daemon = accepted(n.t, d)
	return client, daemon, preface
}

// standing is a node with one daemon and one session on it.
func standing(t *testing.T, change ...func(*relay.Config)) (*node, *tunnel.Daemon, session) {
	t.Helper()
	return standingBy(t, rungs{}, change...)
}

func standingBy(t *testing.T, by rungs, change ...func(*relay.Config)) (*node, *tunnel.Daemon, session) {
	t.Helper()
	n := startNode(t, change...)
	n.by = by
	d := n.daemon(n.token("first"))
	return n, d, newSession(t).standOn(t, d)
}

// passes sends the text through and fails unless it comes out.
func passes(t *testing.T, from io.Writer, to io.Reader, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatalf("writing %q: %v", text, err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("%q came out as %q: %v", text, got, err)
	}
}

// bothWays fails unless bytes pass in both directions.
func bothWays(t *testing.T, client, daemon wire.Leg) {
	t.Helper()
	passes(t, client, daemon, "up")
	passes(t, daemon, client, "down")
}

// refused fails unless the first read of the leg says what is wanted.
func refused(t *testing.T, l wire.Leg, want error) {
	t.Helper()
	if n, err := l.Read(make([]byte, 1)); !errors.Is(err, want) || n != 0 {
		t.Errorf("the leg answered %d bytes, %v; not: %v", n, err, want)
	}
}

// cutFor fails unless a leg that stood ends now, and badly. Over TCP there is no
// way to say why: that it was cut has to do.
func cutFor(t *testing.T, l wire.Leg, by rungs, want error) {
	t.Helper()
	if by.client == tunnel.QUIC {
		refused(t, l, want)
		return
	}
	if n, err := l.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the leg answered %d bytes, %v", n, err)
	}
}

// lost fails unless the daemon notices soon that its connection has gone.
func lost(t *testing.T, d *tunnel.Daemon, soon time.Duration) {
	t.Helper()
	select {
	case <-d.Done():
		if d.Err() == nil {
			t.Error("the connection was lost for no reason")
		}
	case <-time.After(soon):
		t.Fatalf("after %v the connection still stands", soon)
	}
}

// pattern is n bytes of which no part looks like another.
func pattern(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		b.Write([]byte{byte(i >> 16), byte(i >> 8), byte(i)})
	}
	return b.Bytes()[:n]
}

// counts is a Tap that adds up.
type counts struct {
	mu       sync.Mutex
	up, down map[uint64]int
	largest  int
}

func newCounts() *counts { return &counts{up: make(map[uint64]int), down: make(map[uint64]int)} }

func (c *counts) Forwarded(leg uint64, up bool, n int, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if up {
		c.up[leg] += n
	} else {
		c.down[leg] += n
	}
	c.largest = max(c.largest, n)
}

func (c *counts) of(leg uint64) (up, down int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up[leg], c.down[leg]
}
