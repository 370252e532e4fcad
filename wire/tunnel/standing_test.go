package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// said is what a daemon said on its control stream after hello.
type said struct {
	kind wire.MessageType
	body []byte
}

// honest is a relay's control stream: it acknowledges every registration and
// tells the test what else it hears.
func honest(heard chan<- said) func(*quic.Conn) {
	return func(conn *quic.Conn) {
		stream := control(conn, honestAck)
		if stream == nil {
			return
		}
		go func() {
			for {
				kind, body, err := wire.ReadMessage(stream)
				if err != nil {
					return
				}
				if r, err := wire.ParseRegister(body); kind == wire.TypeRegister && err == nil {
					_, _ = stream.Write(wire.RegisterAck{RID: r.RID}.Append(nil))
				}
				select {
				case heard <- said{kind, body}:
				case <-conn.Context().Done():
					return
				}
			}
		}()
	}
}

func next(t *testing.T, heard <-chan said) said {
	t.Helper()
	select {
	case s := <-heard:
		return s
	case <-time.After(patience):
		t.Fatal("the relay hears nothing")
		return said{}
	}
}

func TestADaemonSaysWhatItStandsFor(t *testing.T) {
	t.Parallel()
	heard := make(chan said)
	d, err := dialScripted(t, scripted(t, honest(heard)))
	if err != nil {
		t.Fatal(err)
	}
	if d.Exporter() == [32]byte{} || d.Err() != nil {
		t.Errorf("the exporter is %x, the error %v", d.Exporter(), d.Err())
	}
	session := wire.Register{RID: wire.RendezvousID{5}, RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)}
	registered := make(chan error, 1)
	go func() { registered <- d.Register(t.Context(), session) }()
	if s := next(t, heard); s.kind != wire.TypeRegister {
		t.Fatalf("it said %d", s.kind)
	}
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	if err := d.Keep(session.RID, 77); err != nil {
		t.Fatal(err)
	}
	kept := next(t, heard)
	if k, err := wire.ParseKept(kept.body); err != nil || k != (wire.Kept{RID: session.RID, Leg: 77}) {
		t.Errorf("kept %+v, %v", k, err)
	}
	// While a session stands the heart beats every two seconds, and large enough.
	if s := next(t, heard); s.kind != wire.TypeHeartbeat || len(s.body) < 48 {
		t.Errorf("type %d of %d bytes", s.kind, len(s.body))
	}
	if err := d.Unregister(session.RID); err != nil {
		t.Fatal(err)
	}
	for s := next(t, heard); s.kind != wire.TypeUnregister; s = next(t, heard) {
		if s.kind != wire.TypeHeartbeat {
			t.Fatalf("it said %d", s.kind)
		}
	}
	if got := d.rhythm(silence{}); got != wire.HeartbeatIdle {
		t.Errorf("without a session it beats every %v", got)
	}
}

// Who opens a session and who has just connected may both ask for it: each has
// an answer, whoever asked first.
func TestASessionThatIsAskedForTwiceAtOnceIsAnsweredTwice(t *testing.T) {
	t.Parallel()
	d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) {
		stream := control(conn, honestAck)
		if stream == nil {
			return
		}
		var acks []byte
		for range 2 { // both are asked before one is answered
			_, body, err := wire.ReadMessage(stream)
			if err != nil {
				return
			}
			r, err := wire.ParseRegister(body)
			if err != nil {
				return
			}
			acks = wire.RegisterAck{RID: r.RID}.Append(acks)
		}
		_, _ = stream.Write(acks)
	}))
	if err != nil {
		t.Fatal(err)
	}
	session := wire.Register{RID: wire.RendezvousID{5}, RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)}
	registered := make(chan error, 2)
	for range 2 {
		go func() { registered <- d.Register(within(t), session) }()
	}
	for range 2 {
		if err := <-registered; err != nil {
			t.Error(err)
		}
	}
	if d.mu.Lock(); len(d.waiting) > 0 {
		t.Errorf("%d are still waited for", len(d.waiting))
	}
	d.mu.Unlock()
}

func TestALegCarriesBothWaysAndEndsByHalves(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) {
		if control(conn, honestAck) == nil {
			return
		}
		stream, err := conn.OpenStream()
		if err != nil {
			return
		}
		_, _ = stream.Write(append(wire.Preface{RID: wire.RendezvousID{7}}.Append(nil), "question"...))
		_ = stream.Close()
		go func() {
			answer, err := io.ReadAll(stream)
			if err != nil {
				answer = []byte(err.Error())
			}
			got <- string(answer)
		}()
	}))
	if err != nil {
		t.Fatal(err)
	}
	_, l, err := d.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Reset()
	if question, err := io.ReadAll(l); err != nil || string(question) != "question" {
		t.Errorf("%q, %v", question, err)
	}
	if _, err := io.WriteString(l, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := l.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer := <-got; answer != "answer" {
		t.Errorf("the relay got %q", answer)
	}
	if _, err := l.Write([]byte("more")); err == nil {
		t.Error("it writes after its end")
	}
}

// named is a relay of a public authority: its certificate is good for a name.
func named(t *testing.T, name string) (address string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(certificate)
	listener, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{wire.ALPN},
	}, Config(1, 1+MaxDaemonStreams))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			control(conn, honestAck)
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	return listener.Addr().String(), roots
}

// Without a pin the name is what counts, under the roots that were given.
func TestARelayWithoutAPinIsKnownByItsName(t *testing.T) {
	t.Parallel()
	address, roots := named(t, "localhost")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(host string, roots *x509.CertPool) error {
		d, err := DialDaemon(within(t), DaemonConfig{
			Relay: wire.Relay{Address: net.JoinHostPort(host, port)}, Roots: roots,
			Prove: func([32]byte) (wire.TokenID, []byte, error) { return wire.TokenID{}, make([]byte, 64), nil },
			Ways:  Ways{Listen: func() (net.PacketConn, error) { return net.ListenUDP("udp4", nil) }},
		})
		if err == nil {
			_ = d.Close()
		}
		return err
	}
	if err := dial("localhost", roots); err != nil {
		t.Errorf("the right name under the right roots: %v", err)
	}
	if err := dial("127.0.0.1", roots); err == nil {
		t.Error("another name is taken")
	}
	if err := dial("localhost", x509.NewCertPool()); err == nil {
		t.Error("other roots are taken")
	}
}

func TestWhatCannotBeDialedIsAnError(t *testing.T) {
	t.Parallel()
	none := errors.New("no token today")
	heard := make(chan said)
	relay := scripted(t, honest(heard))
	if _, err := DialDaemon(within(t), DaemonConfig{Relay: relay, Prove: func([32]byte) (wire.TokenID, []byte, error) {
		return wire.TokenID{}, nil, none
	}}); !errors.Is(err, none) {
		t.Errorf("a proof that fails: %v", err)
	}
	noSocket := errors.New("no socket")
	if _, err := DialDaemon(within(t), DaemonConfig{Relay: relay, Ways: Ways{Listen: func() (net.PacketConn, error) { return nil, noSocket }}}); !errors.Is(err, noSocket) {
		t.Errorf("a socket that fails: %v", err)
	}
	for _, address := range []string{"", "localhost", "localhost:", "localhost:no-such-port", "host.invalid:1"} {
		if _, err := DialDaemon(within(t), DaemonConfig{Relay: wire.Relay{Address: address}}); err == nil {
			t.Errorf("%q is dialed", address)
		}
	}
}
