package bench

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"openscope/wire"
)

// middlebox stands before a relay and forwards UDP, each sender's by a port of its
// own, as an address translator does: it can forget a port, and lose packets.
type middlebox struct {
	t       testing.TB
	near    *net.UDPConn
	relay   *net.UDPAddr
	running sync.WaitGroup

	mu     sync.Mutex // guards what is below
	random *rand.Rand
	loss   float64 // the part of the packets that is lost
	flows  map[netip.AddrPort]*flow
	order  []*flow // in the order of their coming
	ended  bool
}

// flow is what one sender sends, and is sent.
type flow struct {
	sender netip.AddrPort
	far    *net.UDPConn // guarded by the box's lock
}

// newMiddlebox is one before the relay, gone with the test.
func newMiddlebox(t testing.TB, relay wire.Relay) (*middlebox, wire.Relay) {
	t.Helper()
	b := &middlebox{t: t, flows: make(map[netip.AddrPort]*flow), random: rand.New(rand.NewPCG(1, 2))}
	var err error
	if b.relay, err = net.ResolveUDPAddr("udp", relay.Address); err != nil {
		t.Fatal(err)
	}
	if b.near, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := b.near.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	b.running.Go(b.forward)
	t.Cleanup(b.end)
	relay.Address = b.near.LocalAddr().String()
	return b, relay
}

func (b *middlebox) end() {
	b.mu.Lock()
	b.ended = true
	for _, f := range b.order {
		_ = f.far.Close()
	}
	b.mu.Unlock()
	_ = b.near.Close()
	b.running.Wait()
}

// forward takes packets to the relay.
func (b *middlebox) forward() {
	packet := make([]byte, 2048)
	for {
		n, sender, err := b.near.ReadFromUDPAddrPort(packet)
		if err != nil {
			return
		}
		if far := b.far(sender); far != nil {
			_, _ = far.Write(packet[:n]) // what is lost is lost
		}
	}
}

// far is the socket by which the sender's packet goes on; nil where it is lost.
func (b *middlebox) far(sender netip.AddrPort) *net.UDPConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.random.Float64() < b.loss {
		return nil
	}
	f := b.flows[sender]
	if f == nil {
		f = &flow{sender: sender}
		b.flows[sender] = f
		b.order = append(b.order, f)
		b.open(f)
	}
	return f.far
}

// open gives the flow a new port; the lock is held.
func (b *middlebox) open(f *flow) {
	far, err := net.DialUDP("udp", nil, b.relay)
	if err != nil {
		b.t.Error(err)
		return
	}
	_ = far.SetReadBuffer(4 << 20)
	f.far = far
	b.running.Go(func() {
		packet := make([]byte, 2048)
		for {
			n, err := far.Read(packet)
			if err != nil {
				if b.gone(f, far) {
					return
				}
				continue // the relay's port is closed just now
			}
			if !b.lost() {
				_, _ = b.near.WriteToUDPAddrPort(packet[:n], f.sender)
			}
		}
	})
}

func (b *middlebox) gone(f *flow, far *net.UDPConn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended || f.far != far
}

func (b *middlebox) lost() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.random.Float64() < b.loss
}

// rebind forgets the port of the given flow: what comes back to it is lost, and
// what the sender sends comes from another.
func (b *middlebox) rebind(which int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.order[which]
	old := f.far
	b.open(f)
	_ = old.Close()
}

// senders counts who has sent something so far.
func (b *middlebox) senders() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.order)
}
