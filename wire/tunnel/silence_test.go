package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
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

// leakyConn is a TCP connection whose path does so, without a word from either end.
type leakyConn struct {
	net.Conn
	loses *atomic.Bool
	ended chan struct{}
	once  sync.Once
}

func (l *leakyConn) Write(p []byte) (int, error) {
	if l.loses.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

func (l *leakyConn) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if l.loses.Load() {
		<-l.ended
		return 0, net.ErrClosed
	}
	return n, err
}

func (l *leakyConn) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Conn.Close()
}

// muxed is an honest relay over TCP: what a daemon asks for it gets.
func muxed(t *testing.T) wire.Relay {
	t.Helper()
	certificate, pin := selfSigned(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serve := func(raw net.Conn) {
		conn, err := OverTCP(t.Context(), raw, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{wire.ALPN}})
		if err != nil {
			return
		}
		defer conn.Close(CodeDone)
		first, err := conn.First(t.Context())
		if err != nil {
			return
		}
		if _, _, err := wire.ReadMessage(first); err != nil {
			return
		}
		control, err := conn.TakeDaemon(t.Context())
		if err != nil {
			return
		}
		_, err = control.Write(honestAck)
		for err == nil {
			var kind wire.MessageType
			var body []byte
			if kind, body, err = wire.ReadMessage(control); kind == wire.TypeRegister && err == nil {
				var r wire.Register
				if r, err = wire.ParseRegister(body); err == nil {
					_, err = control.Write(wire.RegisterAck{RID: r.RID}.Append(nil))
				}
			}
		}
	}
	serving.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(raw) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return wire.Relay{Address: listener.Addr().String(), Pin: &pin}
}

func TestASilentPathIsGivenUpWithinEightSeconds(t *testing.T) {
	t.Parallel()
	t.Run("quic", func(t *testing.T) {
		t.Parallel()
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		path := &leaky{PacketConn: socket}
		givenUp(t, scripted(t, honest(make(chan said, 100))), &path.loses,
			Ways{Only: []Rung{QUIC}, Listen: func() (net.PacketConn, error) { return path, nil }})
	})
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		var loses atomic.Bool
		givenUp(t, muxed(t), &loses, Ways{Only: []Rung{TCP}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &leakyConn{Conn: conn, loses: &loses, ended: make(chan struct{})}, err
		}})
	})
}

// givenUp stands on a relay by the given way, which begins to lose everything.
func givenUp(t *testing.T, relay wire.Relay, loses *atomic.Bool, ways Ways) {
	d, err := DialDaemon(within(t), DaemonConfig{
		Relay: relay, Ways: ways,
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
	loses.Store(true)
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
}
