package tunnel

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"openscope/wire"
)

// leaky is a socket that loses all that it carries, once it is told to.
type leaky struct {
	net.PacketConn
	loses atomic.Bool
}

func (l *leaky) WriteTo(p []byte, to net.Addr) (int, error) {
	if l.loses.Load() {
		return len(p), nil
	}
	return l.PacketConn.WriteTo(p, to)
}

func TestASilentPathIsGivenUpWithinEightSeconds(t *testing.T) {
	t.Parallel()
	heard := make(chan said, 100)
	relay := scripted(t, honest(heard))
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := &leaky{PacketConn: socket}
	d, err := DialDaemon(within(t), DaemonConfig{
		Relay: relay,
		Ways:  Ways{Only: []Rung{QUIC}, Listen: func() (net.PacketConn, error) { return path, nil }},
		Prove: func([32]byte) (wire.TokenID, []byte, error) { return wire.TokenID{}, make([]byte, 64), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Register(within(t), wire.Register{RID: wire.RendezvousID{5}, RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)}); err != nil {
		t.Fatal(err)
	}
	select { // a path that answers is not given up, idle as it is
	case <-d.Done():
		t.Fatalf("given up: %v", d.Err())
	case <-time.After(silentAfter + 2*wire.HeartbeatBusy):
	}
	path.loses.Store(true)
	began := time.Now()
	select {
	case <-d.Done():
	case <-time.After(30 * time.Second):
	}
	if took := time.Since(began); took > wire.HeartbeatBusy+silentAfter+lookInterval || !errors.Is(d.Err(), errSilent) {
		t.Errorf("after %v: %v", took, d.Err())
	} else {
		t.Logf("given up after %v", took)
	}
}

func TestOnlyUnansweredHeartbeatsAreASilence(t *testing.T) {
	t.Parallel()
	var s silence
	at := func(seconds int) time.Time { return time.Unix(int64(1000+seconds), 0) }
	if s.since(7, at(100)) != 0 {
		t.Error("nothing was asked yet")
	}
	s.asked(7, at(100))
	s.asked(7, at(102)) // does not begin it anew
	if got := s.since(7, at(104)); got != 4*time.Second {
		t.Errorf("silent for %v", got)
	}
	if s.since(8, at(105)) != 0 || s.since(8, at(200)) != 0 {
		t.Error("it was answered")
	}
	s.asked(0, at(300))
	if s.since(0, at(400)) != 0 {
		t.Error("a rung that does not count was found silent")
	}
}
