package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// A stream begins with one byte: what the client wants of it.
const (
	wantBytes = 'B' // as many as can be sent, until the stream is reset
	wantEcho  = 'E' // every block of blockSize back
	blockSize = 64
	chunkSize = 32 << 10
)

// stream is what every way comes to.
type stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Reset()
}

// playOrigin stands for the daemon's side.
func playOrigin(ctx context.Context, args []string) error {
	switch kind, args := args[0], args[1:]; kind {
	case "hop":
		return originHop(ctx, naiveConfig(), func(socket *net.UDPConn) net.PacketConn { return socket })
	case "tuned":
		return originHop(ctx, tunnel.Config(1, 1), trains)
	case "naive":
		return originNaive(ctx, args[0])
	case "relay":
		return originOurs(ctx, args, func(_ context.Context, _ wire.RendezvousID, leg wire.Leg) { serveBare(leg) })
	case "records":
		ends, err := newEnds()
		if err != nil {
			return err
		}
		return originOurs(ctx, args, ends.serve)
	case "ssh":
		return originTCP()
	}
	return fmt.Errorf("there is no origin of kind %q", args[0])
}

// serveBare answers a stream as its first byte asks.
func serveBare(s stream) {
	defer s.Reset()
	var want [1]byte
	if _, err := io.ReadFull(s, want[:]); err != nil {
		return
	}
	if want[0] == wantEcho {
		var block [blockSize]byte
		for {
			if _, err := io.ReadFull(s, block[:]); err != nil {
				return
			}
			if _, err := s.Write(block[:]); err != nil {
				return
			}
		}
	}
	chunk := make([]byte, chunkSize)
	for {
		if _, err := s.Write(chunk); err != nil {
			return
		}
	}
}

// trains are our sockets.
func trains(socket *net.UDPConn) net.PacketConn { return tunnel.Trains(socket, nil) }

func originHop(ctx context.Context, config *quic.Config, over func(*net.UDPConn) net.PacketConn) error {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	listener, err := (&quic.Transport{Conn: over(socket)}).Listen(benchTLS(), config)
	if err != nil {
		return err
	}
	if err := say(answer{Where: socket.LocalAddr().String()}); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			go serveStreams(ctx, conn)
		}
	}()
	untilTold()
	return nil
}

func serveStreams(ctx context.Context, conn *quic.Conn) {
	for {
		s, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		go serveBare(quicStream{s, nil})
	}
}

// originNaive keeps one connection to the naive relay, as a daemon does.
func originNaive(ctx context.Context, relay string) error {
	conn, err := quic.DialAddr(ctx, relay, insecure(), naiveConfig())
	if err != nil {
		return err
	}
	first, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := first.Write([]byte{naiveOrigin}); err != nil {
		return err
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil { // it knows us now
		return err
	}
	if err := say(answer{Where: relay}); err != nil {
		return err
	}
	go serveStreams(ctx, conn)
	untilTold()
	return nil
}

// originOurs stands on our relay with every session. A client finds it by the
// relay's address and pin; the rest both ends know.
func originOurs(ctx context.Context, args []string, serve func(context.Context, wire.RendezvousID, wire.Leg)) error {
	relay, err := parseRelay(args[0], args[1])
	if err != nil {
		return err
	}
	token, err := wire.ParseToken(args[2])
	if err != nil {
		return err
	}
	for part := range origins {
		d, err := tunnel.DialDaemon(ctx, tunnel.DaemonConfig{Relay: relay, Prove: func(exporter [32]byte) (wire.TokenID, []byte, error) {
			return token.ID(), token.SignHello(exporter), nil
		}})
		if err != nil {
			return err
		}
		defer d.Close()
		if err := register(ctx, d, part); err != nil {
			return err
		}
		go acceptLegs(ctx, d, serve)
	}
	if err := say(answer{Where: args[0] + " " + args[1]}); err != nil {
		return err
	}
	untilTold()
	return nil
}

func acceptLegs(ctx context.Context, d *tunnel.Daemon, serve func(context.Context, wire.RendezvousID, wire.Leg)) {
	for {
		preface, leg, err := d.Accept(ctx)
		if err != nil {
			return
		}
		go func() {
			_ = d.Keep(preface.RID, preface.Leg) // a relay that has gone has nothing to keep
			serve(ctx, preface.RID, leg)
		}()
	}
}

func originTCP() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := say(answer{Where: l.Addr().String()}); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveBare(tcpStream{conn.(*net.TCPConn)})
		}
	}()
	untilTold()
	return nil
}

// quicStream is a bare stream, with what goes with it.
type quicStream struct {
	*quic.Stream
	release func()
}

func (s quicStream) CloseWrite() error { return s.Close() }

func (s quicStream) Reset() {
	s.CancelRead(0)
	s.CancelWrite(0)
	if s.release != nil {
		s.release()
	}
}

type tcpStream struct{ *net.TCPConn }

func (s tcpStream) Reset() { _ = s.Close() }

// benchTLS is a certificate that nobody checks: the naive ways measure bytes.
func benchTLS() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{benchProtocol}}
}

const benchProtocol = "openscope-perf"

func insecure() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{benchProtocol}}
}

func parseRelay(address, pin string) (wire.Relay, error) {
	p, err := wire.ParsePin(pin)
	return wire.Relay{Address: address, Pin: &p}, err
}
