package relay_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// strangerTCP is a TLS connection that has said nothing yet.
func (n *node) strangerTCP(t *testing.T, from, protocol string) (*tls.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	raw, err := dialer.Dial("tcp", n.address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Client(raw, strangersTLS(protocol))
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn, conn.HandshakeContext(within(t, patience))
}

// answerTo is all that comes back on a connection of its own, and how it ends.
func (n *node) answerTo(t *testing.T, message func(exporter [32]byte) []byte) (answer []byte, end error) {
	t.Helper()
	conn, err := n.strangerTCP(t, "127.0.0.1", wire.ALPN)
	if err != nil {
		t.Fatal(err)
	}
	state := conn.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write(message([32]byte(exporter)))
	answer, err = io.ReadAll(conn)
	return answer, err
}

// Over TCP the refusal is a message, and the same one for everything: also
// for a peer that has sent on without waiting, which would have the kernel drop
// an answer given carelessly.
func TestEveryRefusalOverTCPIsTheSameBytes(t *testing.T) {
	t.Parallel()
	n, _, s := standing(t)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	join := func(rid wire.RendezvousID, then []byte) func([32]byte) []byte {
		return func(exporter [32]byte) []byte {
			return append(wire.Join{RID: rid, Signature: wire.SignJoin(stranger, exporter, rid)}.Append(nil), then...)
		}
	}
	said := func(b []byte) func([32]byte) []byte { return func([32]byte) []byte { return b } }
	want := wire.Answer{Status: wire.StatusRefused}.Append(nil)
	for name, message := range map[string]func([32]byte) []byte{
		"a bad proof":             join(s.rid, nil),
		"an unknown rid":          join(wire.RendezvousID{1}, nil),
		"a bad proof, and msg1":   join(s.rid, make([]byte, 1282)),
		"an unknown rid and msg1": join(wire.RendezvousID{1}, make([]byte, 1282)),
		"an unknown token":        said(wire.Hello{Signature: make([]byte, 64)}.Append(nil)),
		"another version":         said(wire.AppendMessage(nil, wire.TypeJoin, append([]byte{2}, make([]byte, 80)...))),
		"an answer":               said(want),
		"an unknown type":         said(wire.AppendMessage(nil, 99, nil)),
		"257 bytes":               said(wire.AppendMessage(nil, wire.TypeJoin, make([]byte, 254))),
		"a yamux header":          said(make([]byte, 12)),
		"HTTP":                    said([]byte("GET / HTTP/1.1\r\nHost: relay\r\n\r\n")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				if got, err := n.answerTo(t, message); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%x, %v", got, err)
				}
			}
		})
	}
}

func TestWhoIsSilentOverTCPIsEnded(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	began, ends := time.Now(), sync.WaitGroup{}
	whole := wire.Hello{Signature: make([]byte, 64)}.Append(nil)
	// Before TLS, within it, and behind it.
	for _, first := range [][]byte{nil, {22}, {22, 3, 1, 2, 0, 1}} {
		raw, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_, _ = raw.Write(first)
		ends.Go(func() { _, _ = io.Copy(io.Discard, raw) })
	}
	for _, size := range []int{0, 1, 3, len(whole) - 1} {
		conn, err := n.strangerTCP(t, "127.0.0.1", wire.ALPN)
		if err != nil {
			t.Fatal(err)
		}
		ends.Go(func() {
			for i := range size { // a few bytes a second, until it is told off
				if _, err := conn.Write(whole[i : i+1]); err != nil {
					break
				}
				if i > 0 && i%5 == 0 {
					time.Sleep(time.Second)
				}
			}
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	ends.Wait()
	if took := time.Since(began); took > wire.FirstBytes+5*time.Second+4*time.Second {
		t.Errorf("the last one stood for %v", took)
	}
	eventually(t, patience, "their places are free", func() bool { return n.running.Stats().Connections <= 2 })
}

func TestAnotherProtocolIsNotSpokenOverTCP(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	for _, protocol := range []string{"h2", "http/1.1", "openscope-relay/2", ""} {
		conn, err := n.strangerTCP(t, "127.0.0.1", protocol)
		if err == nil { // without ALPN, TLS lets a peer in: the relay does not
			_, err = conn.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", protocol, err)
		}
	}
}

// One door: what an address holds over QUIC and what it holds over TCP add up.
func TestBothRungsShareTheLimitsOfAnAddress(t *testing.T) {
	t.Parallel()
	n := startNode(t, limited(relay.Limits{ConnectionsPerAddress: 4}))
	for range 2 {
		if _, err := n.from(t, "127.0.0.2"); err != nil {
			t.Fatal(err)
		}
		if _, err := n.strangerTCP(t, "127.0.0.2", wire.ALPN); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.strangerTCP(t, "127.0.0.2", wire.ALPN); err == nil {
		t.Error("a fifth connection stands")
	}
	if _, err := n.from(t, "127.0.0.2"); err == nil {
		t.Error("a fifth connection stands over QUIC")
	}
	if _, err := n.strangerTCP(t, "127.0.0.3", wire.ALPN); err != nil {
		t.Errorf("another address is refused too: %v", err)
	}
	eventually(t, patience, "all of it is counted", func() bool {
		s := n.running.Stats()
		return s.RefusedCrowd >= 2 && s.AcceptedTCP == 3 && s.Accepted == 5
	})
}

func TestHandshakesOverTCPAreCounted(t *testing.T) {
	t.Parallel()
	n := startNode(t, limited(relay.Limits{HandshakesPerAddress: 0.4})) // 4 at once
	stood := 0
	for range 8 {
		conn, err := n.strangerTCP(t, "127.0.0.2", wire.ALPN)
		if err == nil {
			stood++
			_ = conn.Close()
		}
	}
	if stood != 4 {
		t.Errorf("%d handshakes were made, and not 4", stood)
	}
}

// pathway is a path to a relay that can be cut as anybody on it can.
type pathway struct {
	mu    sync.Mutex
	conns []*net.TCPConn
}

// dial is for [tunnel.Ways].
func (p *pathway) dial(ctx context.Context, network, address string) (net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	far, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
	if err != nil {
		return nil, err
	}
	near, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.conns = append(p.conns, near.(*net.TCPConn), far.(*net.TCPConn))
	p.mu.Unlock()
	go func() { _, _ = io.Copy(near, far) }()
	go func() { _, _ = io.Copy(far, near) }()
	return conn, nil
}

// cut ends everything as an honest end of TCP looks.
func (p *pathway) cut(t *testing.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if err := c.CloseWrite(); err != nil {
			t.Log(err)
		}
	}
}

// Who is on the path can end a TCP connection so that it looks whole, at every
// layer but TLS's. Neither end may take that for the other's end.
func TestACutIsNeverTakenForAnEnd(t *testing.T) {
	t.Parallel()
	for name, cutClient := range map[string]bool{"the client's connection": true, "the daemon's": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, path := startNode(t), new(pathway)
			n.by = rungs{tunnel.TCP, tunnel.TCP}
			cfg := n.daemonConfig(n.token("first"))
			if !cutClient {
				cfg.Ways.Dial = path.dial
			}
			d, err := tunnel.DialDaemon(within(t, patience), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
			s := newSession(t).standOn(t, d)
			ways := tunnel.Ways{Only: []tunnel.Rung{tunnel.TCP}}
			if cutClient {
				ways.Dial = path.dial
			}
			client, err := tunnel.Join(within(t, patience), tunnel.ClientConfig{
				Relays: []wire.Relay{n.relay()}, RID: s.rid, Ways: ways,
				Sign: func(exporter [32]byte) []byte { return wire.SignJoin(s.join, exporter, s.rid) },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Reset)
			_, daemon := accepted(t, d)
			bothWays(t, timed(t, client), daemon)
			path.cut(t)
			for end, l := range map[string]wire.Leg{"client": client, "daemon": daemon} {
				if k, err := l.Read(make([]byte, 1)); k != 0 || err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the %s reads %d bytes, %v", end, k, err)
				}
			}
		})
	}
}

// A daemon's connection over TCP has room for as many legs as one over QUIC.
func TestADaemonOverTCPHoldsManyLegs(t *testing.T) {
	t.Parallel()
	n, d, first := standingBy(t, rungs{tunnel.TCP, tunnel.TCP})
	sessions := []session{first}
	for range 7 {
		sessions = append(sessions, newSession(t).standOn(t, d))
	}
	for i := range 48 {
		client, daemon, _ := n.pair(sessions[i%8], d)
		passes(t, client, daemon, fmt.Sprintf("leg %d", i))
		passes(t, daemon, client, fmt.Sprintf("answer %d", i))
	}
	if legs := n.running.Stats().Legs; legs != 48 {
		t.Errorf("%d legs stand", legs)
	}
}
