package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"openscope/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The promise of this file: a relay that says anything at all costs a daemon or
// a client at most the connection.

const patience = 10 * time.Second

// selfSigned is a relay's certificate.
func selfSigned(t *testing.T) (tls.Certificate, wire.Pin) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, wire.PinOf(certificate)
}

// scripted is a relay that does what the test has it do with each connection.
func scripted(t *testing.T, script func(*quic.Conn)) wire.Relay {
	t.Helper()
	identity, pin := selfSigned(t)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.Listen(&tls.Config{
		Certificates: []tls.Certificate{identity}, NextProtos: []string{wire.ALPN},
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
			script(conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		_ = transport.Close()
		_ = socket.Close()
		<-ended
	})
	return wire.Relay{Address: socket.LocalAddr().String(), Pin: &pin}
}

// control takes the peer's first message and answers it.
func control(conn *quic.Conn, answer []byte) *quic.Stream {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil
	}
	if _, _, err := wire.ReadMessage(stream); err == nil {
		_, _ = stream.Write(answer)
	}
	return stream
}

var honestAck = wire.HelloAck{Address: "relay.example.com:1", Sessions: 2, Legs: 3}.Append(nil)

func dialScripted(t *testing.T, relay wire.Relay) (*Daemon, error) {
	t.Helper()
	d, err := DialDaemon(within(t), DaemonConfig{Relay: relay, Prove: func([32]byte) (wire.TokenID, []byte, error) {
		return wire.TokenID{}, make([]byte, 64), nil
	}})
	if err == nil {
		t.Cleanup(func() { _ = d.Close() })
	}
	return d, err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestOnlyAHelloAckAnswersHello(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer []byte
		want   error // nil: it is taken
	}{
		"an honest one":      {honestAck, nil},
		"another type":       {wire.RegisterAck{}.Append(nil), wire.ErrMessage},
		"a byte left over":   {wire.AppendMessage(nil, wire.TypeHelloAck, append(honestAck[3:len(honestAck):len(honestAck)], 0)), wire.ErrMessage},
		"another version":    {wire.AppendMessage(nil, wire.TypeHelloAck, []byte{2, 0, 0, 0, 0}), wire.ErrMessage},
		"257 bytes":          {wire.AppendMessage(nil, wire.TypeHelloAck, make([]byte, 254)), wire.ErrMessage},
		"a length, no bytes": {[]byte{byte(wire.TypeHelloAck), 0xff, 0xff}, wire.ErrMessage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) { control(conn, c.answer) }))
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, not %v", err, c.want)
			}
			if c.want == nil && d.Address() != "relay.example.com:1" {
				t.Errorf("the address is %q", d.Address())
			}
		})
	}
}

func TestARelayThatDoesNotAnswerHelloIsGivenUp(t *testing.T) {
	t.Parallel()
	began := time.Now()
	_, err := dialScripted(t, scripted(t, func(conn *quic.Conn) { control(conn, nil) }))
	if err == nil || errors.Is(err, ErrTokenRefused) || time.Since(began) > wire.FirstBytes+2*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestAWrongWordOnTheControlStreamEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, message := range map[string][]byte{
		"another type":             honestAck,
		"an answer with more":      wire.AppendMessage(nil, wire.TypeRegisterAck, make([]byte, 18)),
		"an answer cut short":      wire.AppendMessage(nil, wire.TypeRegisterAck, make([]byte, 16)),
		"257 bytes":                wire.AppendMessage(nil, wire.TypeRegisterAck, make([]byte, 254)),
		"what belongs to a client": wire.Preface{}.Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) {
				if stream := control(conn, honestAck); stream != nil {
					_, _ = stream.Write(message)
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-d.Done():
			case <-time.After(patience):
				t.Fatal("the connection stands")
			}
			if !errors.Is(d.Err(), wire.ErrMessage) {
				t.Errorf("it was lost for %v", d.Err())
			}
			if _, _, err := d.Accept(within(t)); err == nil {
				t.Error("a leg was accepted")
			}
			if err := d.Register(within(t), wire.Register{RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32)}); err == nil {
				t.Error("a session was registered")
			}
		})
	}
}

func TestAnswersToNothingAreNotMistaken(t *testing.T) {
	t.Parallel()
	mine := wire.Register{RID: wire.RendezvousID{1}, RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)}
	for name, c := range map[string]struct {
		status wire.RegisterStatus
		taken  bool
	}{"registered": {wire.Registered, true}, "refused": {wire.RegisterRefused, false}, "full": {wire.RegisterFull, false}, "an unknown status": {77, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) {
				stream := control(conn, honestAck)
				if stream == nil {
					return
				}
				if _, _, err := wire.ReadMessage(stream); err != nil {
					return
				}
				opposite := wire.Registered
				if c.taken {
					opposite = wire.RegisterRefused
				}
				for range 3 { // about a session that nobody registered
					_, _ = stream.Write(wire.RegisterAck{RID: wire.RendezvousID{2}, Status: opposite}.Append(nil))
				}
				answer := wire.RegisterAck{RID: mine.RID, Status: c.status}.Append(nil)
				_, _ = stream.Write(append(answer, answer...))
			}))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Register(within(t), mine); (err == nil) != c.taken {
				t.Errorf("registering: %v", err)
			}
		})
	}
}

func TestARegistrationWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) { control(conn, honestAck) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = d.Register(ctx, wire.Register{RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, _, err := d.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("accepting: %v", err)
	}
}

func TestLegsWithoutAPrefaceAreSkipped(t *testing.T) {
	t.Parallel()
	honest := wire.Preface{RID: wire.RendezvousID{7}, Leg: 9, From: "192.0.2.1:5"}
	d, err := dialScripted(t, scripted(t, func(conn *quic.Conn) {
		if control(conn, honestAck) == nil {
			return
		}
		for _, preface := range [][]byte{
			honest.Append(nil)[:10], // and nothing more
			honestAck,
			wire.Preface{From: "\x1b[2J"}.Append(nil),
			wire.AppendMessage(nil, wire.TypePreface, make([]byte, 254)),
			append(honest.Append(nil), "msg1"...),
		} {
			stream, err := conn.OpenStream()
			if err != nil {
				return
			}
			_, _ = stream.Write(preface)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	preface, l, err := d.Accept(within(t))
	if err != nil || preface != honest {
		t.Fatalf("%+v, %v", preface, err)
	}
	defer l.Reset()
	got := make([]byte, 4)
	if _, err := io.ReadFull(l, got); err != nil || string(got) != "msg1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAClientTriesTheRelaysInOrder(t *testing.T) {
	t.Parallel()
	met := make(chan string, 3)
	answering := func(name string) wire.Relay {
		return scripted(t, func(conn *quic.Conn) {
			met <- name
			control(conn, nil)
		})
	}
	second, third := answering("second"), answering("third")
	first := answering("first")
	first.Pin = &wire.Pin{}
	l, err := Join(within(t), ClientConfig{
		Relays: []wire.Relay{first, {Address: "not-an-address"}, second, third},
		Sign:   func([32]byte) []byte { return make([]byte, 64) },
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Reset()
	if got := <-met; got != "second" {
		t.Errorf("the %s relay was joined", got)
	}
	if _, err := Join(within(t), ClientConfig{Relays: []wire.Relay{first}}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("with one that is not to be trusted: %v", err)
	}
	if _, err := Join(within(t), ClientConfig{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without relays: %v", err)
	}
}

// Only a relay's own code means what it says.
func TestCodesAreTheRelaysAlone(t *testing.T) {
	t.Parallel()
	meanings := map[uint64]error{
		CodeRefused: wire.ErrRefused, CodeDraining: wire.ErrDraining, CodeSuperseded: wire.ErrSuperseded, CodeDone: nil, 4: nil, 1 << 40: nil,
	}
	for code, want := range meanings {
		for _, remote := range []bool{true, false} {
			for _, err := range []error{
				&quic.StreamError{ErrorCode: quic.StreamErrorCode(code), Remote: remote},
				fmt.Errorf("reading: %w", &quic.ApplicationError{ErrorCode: quic.ApplicationErrorCode(code), Remote: remote}),
			} {
				got := legError(err)
				if !errors.Is(got, err) {
					t.Errorf("%v became %v", err, got)
				}
				for _, meaning := range meanings {
					if meaning != nil && errors.Is(got, meaning) != (remote && meaning == want) {
						t.Errorf("%v, remote %v, means %v", err, remote, got)
					}
				}
			}
		}
	}
	if legError(nil) != nil || legError(io.EOF) != io.EOF {
		t.Error("an end is not an error of the relay's")
	}
}
