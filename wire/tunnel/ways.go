package tunnel

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Ways is how this machine gets out of its network. The zero Ways is the
// system's own, without a proxy.
type Ways struct {
	// Only names the rungs that are tried; nil means all.
	Only []Rung
	// Proxies are the ways through an HTTP proxy; nil means that there is none.
	Proxies *Proxies
	// Known remembers what worked; nil forgets it.
	Known *Known
	// Listen opens the socket for QUIC; nil means udp on any port.
	Listen func() (net.PacketConn, error)
	// Dial opens TCP connections; nil means the system's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (w *Ways) listen() (net.PacketConn, error) {
	if w.Listen != nil {
		return w.Listen()
	}
	return net.ListenUDP("udp", nil)
}

// tcpBuffer bounds what the kernel takes of a connection in each direction: what
// is urgent waits behind all of it.
const tcpBuffer = 256 << 10

func (w *Ways) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	connect := w.Dial
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	conn, err := connect(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := errors.Join(tcp.SetReadBuffer(tcpBuffer), tcp.SetWriteBuffer(tcpBuffer)); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// rungs are the ways to try to this address, the one that worked first.
func (w *Ways) rungs(address string) []Rung {
	var rungs []Rung
	for _, r := range Rungs {
		if w.Only != nil && !slices.Contains(w.Only, r) || r == Proxy && w.Proxies.For(address) == nil {
			continue
		}
		rungs = append(rungs, r)
	}
	if known, ok := w.Known.of(address); ok {
		slices.SortStableFunc(rungs, func(a, b Rung) int { return boolToInt(a != known) - boolToInt(b != known) })
	}
	return rungs
}

// climbAfter is how long at most one stands below QUIC before that is tried again,
// and half of it how long at least. An attempt takes five seconds to fail: whatever
// the moment, one is whole within the minute.
const climbAfter = 20 * time.Second

// ClimbPause is how long to stand below QUIC before it is tried again.
func ClimbPause() time.Duration { return climbAfter/2 + rand.N(climbAfter/2) }

// Climb is the way up from a rung, if there is one: QUIC alone.
func (w Ways) Climb(from Rung) (up Ways, ok bool) {
	if from == QUIC || w.Only != nil && !slices.Contains(w.Only, QUIC) {
		return w, false
	}
	w.Only = []Rung{QUIC}
	return w, true
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Known is which rung worked last, to each relay. It is safe for concurrent
// use; the zero Known knows nothing yet.
type Known struct {
	mu    sync.Mutex // guards what is below
	rungs map[string]Rung
}

func (k *Known) of(address string) (Rung, bool) {
	if k == nil {
		return 0, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.rungs[address]
	return r, ok
}

// worked is called for the relays of a configuration, or of a handle: a few.
func (k *Known) worked(address string, r Rung) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rungs == nil {
		k.rungs = make(map[string]Rung)
	}
	k.rungs[address] = r
}
