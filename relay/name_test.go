package relay_test

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// balancer is what an operator puts behind one name: it sends each flow to the
// next node, and keeps it there.
type balancer struct {
	front *net.UDPConn

	mu    sync.Mutex // guards what is below
	nodes []string
	turn  int
	flows map[string]net.Conn
}

func balance(t *testing.T, nodes ...string) *balancer {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{front: front, nodes: nodes, flows: make(map[string]net.Conn)}
	var running sync.WaitGroup
	running.Go(func() { b.run(&running) })
	t.Cleanup(func() {
		_ = front.Close()
		b.mu.Lock()
		for _, back := range b.flows {
			_ = back.Close()
		}
		b.mu.Unlock()
		running.Wait()
	})
	return b
}

func (b *balancer) run(running *sync.WaitGroup) {
	buf := make([]byte, 2048)
	for {
		n, from, err := b.front.ReadFromUDP(buf)
		if err != nil {
			return
		}
		back, isNew := b.flow(from.String())
		if back == nil {
			continue
		}
		_, _ = back.Write(buf[:n])
		if isNew {
			running.Go(func() {
				buf := make([]byte, 2048)
				for {
					n, err := back.Read(buf)
					if err != nil {
						return
					}
					_, _ = b.front.WriteToUDP(buf[:n], from)
				}
			})
		}
	}
}

func (b *balancer) flow(from string) (back net.Conn, isNew bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if back, ok := b.flows[from]; ok {
		return back, false
	}
	back, err := net.Dial("udp", b.nodes[b.turn%len(b.nodes)])
	if err != nil {
		return nil, false
	}
	b.turn++
	b.flows[from] = back
	return back, true
}

// without takes a node out, as a health check does.
func (b *balancer) without(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = slices.DeleteFunc(b.nodes, func(n string) bool { return n == node })
}

// Several nodes behind one name, with one certificate and the same tokens: a
// daemon lands on any of them and is told which, clients come to that one, and a
// node that goes costs its daemons one more dialing of the name.
func TestSeveralNodesStandBehindOneName(t *testing.T) {
	t.Parallel()
	const count, each = 3, 2
	dir, nodes := t.TempDir(), make(map[string]*node)
	var addresses []string
	for range count {
		n := &node{t: t, dir: dir, address: "127.0.0.1:0", by: rungs{tunnel.QUIC, tunnel.QUIC}}
		n.start(func(c *relay.Config) { c.PublicAddress = c.Conn.LocalAddr().String() })
		nodes[n.address], addresses = n, append(addresses, n.address)
	}
	one := nodes[addresses[0]]
	token := one.token("site")
	name := balance(t, slices.Clone(addresses)...)
	dial := func() *tunnel.Daemon {
		cfg := one.daemonConfig(token)
		cfg.Relay = wire.Relay{Address: name.front.LocalAddr().String(), Pin: &one.pin}
		d, err := tunnel.DialDaemon(within(t, patience), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if nodes[d.Address()] == nil {
			t.Fatalf("it was told to stand on %q", d.Address())
		}
		return d
	}
	landed := make(map[string][]*tunnel.Daemon)
	for range count * each {
		d := dial()
		landed[d.Address()] = append(landed[d.Address()], d)
		s := newSession(t).standOn(t, d)
		client, daemon, _ := nodes[d.Address()].pair(s, d)
		bothWays(t, client, daemon)
		for address, other := range nodes {
			if address != d.Address() {
				refused(t, other.client(s), wire.ErrRefused)
			}
		}
	}
	for _, address := range addresses {
		if len(landed[address]) != each {
			t.Errorf("%d daemons landed on %s", len(landed[address]), address)
		}
	}
	gone := addresses[0]
	name.without(gone)
	nodes[gone].stop()
	for _, d := range landed[gone] {
		lost(t, d, 3*time.Second)
		again := dial()
		if again.Address() == gone {
			t.Fatal("it landed on the node that has gone")
		}
		client, daemon, _ := nodes[again.Address()].pair(newSession(t).standOn(t, again), again)
		bothWays(t, client, daemon)
	}
}
