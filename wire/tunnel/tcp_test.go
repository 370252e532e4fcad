package tunnel

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"openscope/wire"
)

// scriptedTCP is a relay over TCP that does what the test has it do with each
// connection, whose handshake it has made.
func scriptedTCP(t *testing.T, script func(*tls.Conn)) wire.Relay {
	t.Helper()
	certificate, pin := selfSigned(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{wire.ALPN}})
			_ = conn.SetDeadline(time.Now().Add(patience))
			if conn.Handshake() == nil {
				script(conn)
			}
			_ = raw.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return wire.Relay{Address: listener.Addr().String(), Pin: &pin}
}

// answersFirst takes the peer's first message, answers, and waits for its end.
func answersFirst(answer []byte) func(*tls.Conn) {
	return func(conn *tls.Conn) {
		if _, _, err := wire.ReadMessage(conn); err != nil {
			return
		}
		_, _ = conn.Write(answer)
		_, _ = io.Copy(io.Discard, conn)
	}
}

func TestOnlyATakenAnswerGoesOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer []byte
		want   error
	}{
		"refused":          {wire.Answer{Status: wire.StatusRefused}.Append(nil), wire.ErrRefused},
		"draining":         {wire.Answer{Status: wire.StatusDraining}.Append(nil), wire.ErrDraining},
		"superseded":       {wire.Answer{Status: wire.StatusSuperseded}.Append(nil), wire.ErrSuperseded},
		"another status":   {wire.AppendMessage(nil, wire.TypeAnswer, []byte{4}), wire.ErrMessage},
		"a byte left over": {wire.AppendMessage(nil, wire.TypeAnswer, []byte{0, 0}), wire.ErrMessage},
		"another type":     {honestAck, wire.ErrMessage},
		"257 bytes":        {wire.AppendMessage(nil, wire.TypeAnswer, make([]byte, 254)), wire.ErrMessage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := scriptedTCP(t, answersFirst(c.answer))
			ways := Ways{Only: []Rung{TCP}}
			l, err := Join(within(t), ClientConfig{Relays: []wire.Relay{relay}, Ways: ways, Sign: func([32]byte) []byte { return make([]byte, 64) }})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := l.Read(make([]byte, 1)); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("a client reads %d bytes, %v", n, err)
			}
			l.Reset()
			want := c.want
			if errors.Is(want, wire.ErrRefused) {
				want = ErrTokenRefused
			}
			_, err = DialDaemon(within(t), DaemonConfig{Relay: relay, Ways: ways, Prove: func([32]byte) (wire.TokenID, []byte, error) {
				return wire.TokenID{}, make([]byte, 64), nil
			}})
			if !errors.Is(err, want) {
				t.Errorf("a daemon is told %v", err)
			}
		})
	}
}

// What comes behind an honest answer and is no yamux, or none of a relay's,
// costs the daemon the connection.
func TestADaemonOverTCPSurvivesWhatARelaySays(t *testing.T) {
	t.Parallel()
	taken := wire.Answer{Status: wire.StatusTaken}.Append(nil)
	for name, then := range map[string][]byte{
		"nothing":             nil,
		"noise":               []byte("\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99"),
		"4 GiB of a stream":   {0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff},
		"our own stream":      {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0},
		"goodbye":             {0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2},
		"an answer, HTTP":     []byte("HTTP/1.1 200 OK\r\n\r\n"),
		"a reset of nothing":  {0, 1, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0},
		"its own hello again": wire.Hello{Signature: make([]byte, 64)}.Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := scriptedTCP(t, func(conn *tls.Conn) {
				if _, _, err := wire.ReadMessage(conn); err == nil {
					_, _ = conn.Write(append(taken, then...))
				}
				_, _ = io.CopyN(io.Discard, conn, 12) // and hangs up on the first frame
			})
			began := time.Now()
			d, err := DialDaemon(within(t), DaemonConfig{Relay: relay, Ways: Ways{Only: []Rung{TCP}}, Prove: func([32]byte) (wire.TokenID, []byte, error) {
				return wire.TokenID{}, make([]byte, 64), nil
			}})
			if err == nil {
				_ = d.Close()
				t.Fatal("it stands")
			}
			if took := time.Since(began); took > wire.FirstBytes+2*time.Second {
				t.Errorf("it took %v to find out", took)
			}
		})
	}
}
