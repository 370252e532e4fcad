package relay_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

func limited(l relay.Limits) func(*relay.Config) {
	return func(c *relay.Config) { c.Limits = l }
}

// from dials as a client at that address of the loopback network.
func (n *node) from(t *testing.T, ip string) (*quic.Conn, error) {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() { _ = transport.Close(); _ = socket.Close() })
	to, err := net.ResolveUDPAddr("udp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	return transport.Dial(within(t, patience), to, strangersTLS(wire.ALPN), &quic.Config{})
}

func TestOneAddressHasItsShareOfConnections(t *testing.T) {
	t.Parallel()
	n := startNode(t, limited(relay.Limits{ConnectionsPerAddress: 3}))
	var last *quic.Conn
	for range 3 {
		conn, err := n.from(t, "127.0.0.2")
		if err != nil {
			t.Fatal(err)
		}
		last = conn
	}
	if _, err := n.from(t, "127.0.0.2"); err == nil {
		t.Error("a fourth connection stands")
	}
	if _, err := n.from(t, "127.0.0.3"); err != nil {
		t.Errorf("another address is refused too: %v", err)
	}
	if err := last.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "its place is free again", func() bool { return n.running.Stats().Connections == 3 })
	if _, err := n.from(t, "127.0.0.2"); err != nil {
		t.Errorf("the freed place is not given: %v", err)
	}
}

func TestOneAddressHasItsShareOfHandshakes(t *testing.T) {
	t.Parallel()
	n := startNode(t, limited(relay.Limits{HandshakesPerAddress: 0.4})) // 4 at once
	for range 4 {
		conn, err := n.from(t, "127.0.0.2")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWithError(0, "")
	}
	if s := n.running.Stats(); s.Retried < 4 {
		t.Errorf("it was asked to prove its address %d times", s.Retried)
	}
	if _, err := n.from(t, "127.0.0.2"); err == nil {
		t.Error("a fifth handshake was made")
	}
	if s := n.running.Stats(); s.RefusedCrowd == 0 {
		t.Error("the refusal is not counted")
	}
	if _, err := n.from(t, "127.0.0.3"); err != nil {
		t.Errorf("another address is refused too: %v", err)
	}
}

func TestTheWholeRelayHasItsLimits(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]relay.Limits{
		"connections": {Connections: 2}, "handshakes": {Handshakes: 2e-9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, limited(l))
			admitted := 0
			for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
				if _, err := n.from(t, ip); err == nil {
					admitted++
				}
			}
			if admitted == 0 || admitted == 3 {
				t.Errorf("%d of 3 were admitted", admitted)
			}
		})
	}
}

// bareSocket gives the relay the kernel's socket, as the program does.
func bareSocket(c *relay.Config) { c.Conn = c.Conn.(*socket).UDPConn }

// While there is no turn to give, a newcomer is not answered at all, which costs
// nothing; an honest one says it again, and gets in without dialing anew.
func TestWhoFindsNoTurnIsHeardLater(t *testing.T) {
	t.Parallel()
	n := startNode(t, limited(relay.Limits{Handshakes: 2}), bareSocket)
	var before sync.WaitGroup
	defer before.Wait()
	for i := 1; !relay.NoTurn(n.running); i++ { // each takes one, as soon as it has been heard
		before.Go(func() { _, _ = n.from(t, fmt.Sprintf("127.0.2.%d", i)) })
		eventually(t, patience, "they are not let in", func() bool { return n.running.Stats().Accepted+uint64(n.running.Stats().Handshaking) >= uint64(i) })
	}
	if _, err := n.from(t, "127.0.0.2"); err != nil {
		t.Error(err)
	}
	if n.running.Stats().RefusedCrowd == 0 {
		t.Error("it had not to come again")
	}
}

func TestWhoFindsNoTurnIsNotAnswered(t *testing.T) {
	t.Parallel()
	first := firstFlight(t)
	n := startNode(t, limited(relay.Limits{Handshakes: 2e-9}), bareSocket)
	if _, err := n.from(t, "127.0.0.2"); err != nil { // takes the only turn for long
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := n.running.Stats()
	for _, datagram := range first {
		if _, err := conn.Write(datagram); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "they have been dropped", func() bool {
		return n.running.Stats().RefusedCrowd >= before.RefusedCrowd+uint64(len(first))
	})
	if s := n.running.Stats(); s.Retried != before.Retried || s.Handshaking > 0 {
		t.Errorf("%+v", s)
	}
}

func (n *node) limitedToken(name string, l relay.TokenLimits, expires *time.Time) wire.Token {
	n.t.Helper()
	token, err := n.tokens.AddLimited(relay.TokenEntry{Name: name, TokenLimits: l, Expires: expires}, rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

func TestATokenHasItsShare(t *testing.T) { onEveryRung(t, testATokenHasItsShare) }

func testATokenHasItsShare(t *testing.T, by rungs) {
	n := startNode(t)
	n.by = by
	token := n.limitedToken("small", relay.TokenLimits{Sessions: 2, Connections: 1, Bytes: 100 << 10}, nil)
	d := n.daemon(token)
	s := newSession(t).standOn(t, d)
	newSession(t).standOn(t, d)
	if err := d.Register(within(t, patience), newSession(t).registration(d.Exporter())); err == nil {
		t.Error("a third session stands")
	}
	if _, err := tunnel.DialDaemon(within(t, patience), n.daemonConfig(token)); !errors.Is(err, tunnel.ErrTokenRefused) {
		t.Errorf("a second connection: %v", err)
	}
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	go func() { _, _ = client.Write(make([]byte, 200<<10)) }() // it is cut off within
	if got, err := io.Copy(io.Discard, daemon); err == nil || got > 100<<10 {
		t.Errorf("%d bytes passed: %v", got, err)
	}
	refused(t, n.client(s), wire.ErrRefused) // as every other refusal

	other := n.daemon(n.token("other"))
	client, daemon, _ = n.pair(newSession(t).standOn(t, other), other)
	bothWays(t, client, daemon)
}

func TestATokensRateHolds(t *testing.T) { onEveryRung(t, testATokensRateHolds) }

func testATokensRateHolds(t *testing.T, by rungs) {
	n := startNode(t)
	n.by = by
	d := n.daemon(n.limitedToken("slow", relay.TokenLimits{Rate: 256 << 10}, nil))
	client, daemon, _ := n.pair(newSession(t).standOn(t, d), d)
	began := time.Now()
	go func() { _, _ = client.Write(make([]byte, 768<<10)) }()
	if _, err := io.CopyN(io.Discard, daemon, 768<<10); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 1500*time.Millisecond { // a second's worth may come at once
		t.Errorf("768 KiB at 256 KiB/s took %v", took)
	}
}

func TestARevokedTokenIsGoneWithinASecond(t *testing.T) {
	onEveryRung(t, testARevokedTokenIsGoneWithinASecond)
}

func testARevokedTokenIsGoneWithinASecond(t *testing.T, by rungs) {
	n := startNode(t)
	n.by = by
	d := n.daemon(n.token("first"))
	neighbour := n.daemon(n.token("second"))
	client, _, _ := n.pair(newSession(t).standOn(t, d), d)
	if err := n.tokens.Revoke("first"); err != nil {
		t.Fatal(err)
	}
	lost(t, d, time.Second)
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("its leg goes on")
	}
	settled(t, neighbour)
}

func TestATokenExpires(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	soon := time.Now().Add(time.Second)
	token := n.limitedToken("guest", relay.TokenLimits{}, &soon)
	d := n.daemon(token)
	lost(t, d, time.Until(soon)+time.Second)
	if early := time.Until(soon); early > 0 {
		t.Errorf("it was ended %v early", early)
	}
	if _, err := tunnel.DialDaemon(within(t, patience), tunnel.DaemonConfig{Relay: n.relay(), Prove: prove(token)}); !errors.Is(err, tunnel.ErrTokenRefused) {
		t.Errorf("afterwards: %v", err)
	}
}

// The clock stands still for the daemon: what ends the leg is the relay's timer.
func TestALegEndsWithItsSession(t *testing.T) { onEveryRung(t, testALegEndsWithItsSession) }

func testALegEndsWithItsSession(t *testing.T, by rungs) {
	n := startNode(t)
	n.by = by
	d := n.daemon(n.token("first"))
	s := newSession(t)
	short := wire.SignRegister(s.register, d.Exporter(), wire.Register{
		RID: s.rid, RegisterKey: public(s.register), JoinKey: public(s.join), Lifetime: 2 * time.Second,
	})
	if err := d.Register(within(t, patience), short); err != nil {
		t.Fatal(err)
	}
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	began := time.Now()
	if _, err := client.Read(make([]byte, 1)); err == nil || time.Since(began) > 4*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	refused(t, n.client(s), wire.ErrRefused)
}

// Draining: what runs goes on, what is new is told to come back, a daemon that
// holds nobody's leg goes elsewhere at once, and Run ends with the last leg.
func TestADrainLetsRunningLegsEnd(t *testing.T) { onEveryRung(t, testADrainLetsRunningLegsEnd) }

func testADrainLetsRunningLegsEnd(t *testing.T, by rungs) {
	n, busy, s := standingBy(t, by, func(c *relay.Config) { c.DrainTime = 30 * time.Second })
	token := n.token("idle")
	idle := n.daemon(token)
	client, daemon, _ := n.pair(s, busy)
	bothWays(t, client, daemon)
	n.cancel()
	lost(t, idle, time.Second)
	if !errors.Is(idle.Err(), wire.ErrDraining) {
		t.Errorf("the idle daemon is told %v", idle.Err())
	}
	refused(t, n.client(s), wire.ErrDraining)
	refused(t, n.client(newSession(t)), wire.ErrDraining) // before anybody looks whether it exists
	if _, err := tunnel.DialDaemon(within(t, patience), n.daemonConfig(token)); !errors.Is(err, wire.ErrDraining) {
		t.Errorf("a daemon that comes is told %v", err)
	}
	bothWays(t, client, daemon)
	if err := errors.Join(client.CloseWrite(), daemon.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.ended:
	case <-time.After(3 * time.Second):
		t.Fatal("the last leg has ended, and the relay has not")
	}
	lost(t, busy, time.Second)
}

func TestADrainEnds(t *testing.T) { onEveryRung(t, testADrainEnds) }

func testADrainEnds(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by, func(c *relay.Config) { c.DrainTime = time.Second })
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	began := time.Now()
	n.cancel()
	<-n.ended
	if took := time.Since(began); took < time.Second || took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	cutFor(t, client, by, wire.ErrDraining)
}
