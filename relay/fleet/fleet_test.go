package fleet_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openscope/relay"
	"openscope/relay/fleet"
	"openscope/wire"
	"openscope/wire/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one relay of a fleet, with its own connection to NATS.
type node struct {
	t       *testing.T
	dir     string
	address string
	pin     wire.Pin
	tokens  *fleet.Bucket
	stop    func()
}

func startNode(t *testing.T, c *cluster) *node {
	n := &node{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	n.start(c)
	t.Cleanup(func() { n.stop() })
	return n
}

func open(t *testing.T, c *cluster) *fleet.Bucket {
	t.Helper()
	b, err := fleet.Open(t.Context(), fleet.Config{Servers: c.urls(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (n *node) start(c *cluster) {
	n.t.Helper()
	certificate, pin, err := relay.SelfSigned(n.dir, rand.Reader, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.pin, n.address, n.tokens = pin, conn.LocalAddr().String(), open(n.t, c)
	r, err := relay.New(relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:        conn, Tokens: n.tokens, PublicAddress: n.address,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := errors.Join(<-ended, n.tokens.Close()); err != nil {
			n.t.Error(err)
		}
		n.stop = func() {}
	}
}

// dial stands a daemon on the node, and says whether it was taken.
func (n *node) dial(token wire.Token) (*tunnel.Daemon, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return tunnel.DialDaemon(ctx, tunnel.DaemonConfig{
		Relay: wire.Relay{Address: n.address, Pin: &n.pin},
		Prove: func(exporter [32]byte) (wire.TokenID, []byte, error) {
			return token.ID(), token.SignHello(exporter), nil
		},
	})
}

func (n *node) knows(token wire.Token) bool {
	_, ok := n.tokens.Lookup(token.ID())
	return ok
}

// made makes a token once the cluster has a leader.
func made(t *testing.T, b *fleet.Bucket, name string) wire.Token {
	t.Helper()
	var token wire.Token
	eventually(t, 90*time.Second, "a token can be made", func() (ok bool) {
		var err error
		token, err = b.AddLimited(relay.TokenEntry{Name: name}, rand.Reader)
		return err == nil
	})
	return token
}

func TestAFleetAgreesOnWhoMayStand(t *testing.T) {
	c := startCluster(t)
	nodes := []*node{startNode(t, c), startNode(t, c), startNode(t, c)}
	operator := open(t, c)
	defer operator.Close()
	first := made(t, operator, "first")
	for _, n := range nodes {
		eventually(t, 90*time.Second, "the cluster has settled", func() bool { return n.knows(first) })
	}

	// A token made on one node is taken by all within a second.
	for i := range 5 {
		token := made(t, nodes[i%3].tokens, "made-"+strconv.Itoa(i))
		for _, n := range nodes {
			if took := eventually(t, time.Second, "the new token is taken", func() bool { return n.knows(token) }); i == 0 {
				t.Logf("made: known after %v", took)
			}
		}
	}
	// One that is revoked loses its connections on all within a second.
	gone := made(t, operator, "gone")
	var standing []*tunnel.Daemon
	for _, n := range nodes {
		eventually(t, time.Second, "it is taken", func() bool { return n.knows(gone) })
		d, err := n.dial(gone)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		standing = append(standing, d)
	}
	if err := nodes[1].tokens.Revoke("gone"); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	for _, d := range standing {
		select {
		case <-d.Done():
		case <-time.After(time.Second):
			t.Fatal("a second after it was revoked, a token stands")
		}
	}
	t.Logf("revoked: all three connections ended after %v", time.Since(revoked))
	if err := operator.Revoke("gone"); !errors.Is(err, relay.ErrNoToken) {
		t.Errorf("revoking it again: %v", err)
	}
	if _, err := operator.AddLimited(relay.TokenEntry{Name: "first"}, rand.Reader); !errors.Is(err, relay.ErrTokenExists) {
		t.Errorf("a second token of a name: %v", err)
	}
	awayTest(t, c, nodes, first)
}

// awayTest: without NATS, who is known goes on, and a node that knows nobody
// takes nobody.
func awayTest(t *testing.T, c *cluster, nodes []*node, first wire.Token) {
	for i := range c.servers {
		c.kill(i)
	}
	for _, n := range nodes {
		d, err := n.dial(first)
		if err != nil {
			t.Fatalf("NATS is away, and a known token is refused: %v", err)
		}
		defer d.Close()
	}
	fresh := startNode(t, c)
	if d, err := fresh.dial(first); !errors.Is(err, tunnel.ErrTokenRefused) {
		t.Errorf("a node that knows nobody: %v, %v", d, err)
	}
	if fresh.tokens.Ready() == nil {
		t.Error("it says it is ready")
	}
	for i := range c.servers {
		c.start(i)
	}
	took := eventually(t, 60*time.Second, "NATS is back, and the new node takes the token", func() bool { return fresh.knows(first) })
	t.Logf("NATS back after a whole outage: known again after %v", took)
}

// Servers of NATS and relays are killed at random, at most one of each at a
// time; whatever was answered as done holds on every node soon.
func TestAFleetSurvivesRandomKills(t *testing.T) {
	c := startCluster(t)
	nodes := []*node{startNode(t, c), startNode(t, c), startNode(t, c)}
	operator := open(t, c)
	defer operator.Close()
	seed := mathrand.Uint64()
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	standing := made(t, operator, "standing")
	var slowest time.Duration
	for round := range kills {
		i := random.IntN(3)
		if random.IntN(2) == 0 {
			c.kill(i)
		} else {
			nodes[i].stop()
		}
		name := "round-" + strconv.Itoa(round)
		token := made(t, operator, name)
		for j, n := range nodes {
			if j == i {
				continue
			}
			slowest = max(slowest, eventually(t, 10*time.Second, "a token made during an outage is taken", func() bool { return n.knows(token) && n.knows(standing) }))
		}
		if c.servers[i] == nil {
			c.start(i)
		} else {
			nodes[i].start(c)
		}
		eventually(t, 30*time.Second, "it can be revoked", func() bool {
			err := operator.Revoke(name)
			return err == nil || errors.Is(err, relay.ErrNoToken)
		})
		for _, n := range nodes {
			slowest = max(slowest, eventually(t, 10*time.Second, "the revoked token is gone everywhere", func() bool { return n.tokens.Ready() == nil && !n.knows(token) && n.knows(standing) }))
		}
	}
	t.Logf("%d kills; the slowest agreement took %v", kills, slowest)
}
