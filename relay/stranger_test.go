package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// stranger is a QUIC connection that has said nothing yet.
func (n *node) stranger(t *testing.T, protocol string) *quic.Conn {
	t.Helper()
	conn, err := n.dialStranger(t, protocol)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (n *node) dialStranger(t *testing.T, protocol string) (*quic.Conn, error) {
	conn, err := quic.DialAddr(within(t, patience), n.address, strangersTLS(protocol), &quic.Config{})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	}
	return conn, err
}

func strangersTLS(protocol string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS13}
}

// says opens the connection's stream with these bytes.
func says(t *testing.T, conn *quic.Conn, message []byte) *quic.Stream {
	t.Helper()
	stream, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	writes(stream, message)
	return stream
}

// writes does not mind that the relay may end the connection meanwhile.
func writes(stream *quic.Stream, message []byte) { _, _ = stream.Write(message) }

// proved is a connection that has said hello with the token.
func (n *node) proved(t *testing.T, token wire.Token) (*quic.Conn, *quic.Stream) {
	t.Helper()
	conn := n.stranger(t, wire.ALPN)
	state := conn.ConnectionState().TLS
	key, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	control := says(t, conn, wire.Hello{Token: token.ID(), Signature: token.SignHello([32]byte(key))}.Append(nil))
	if kind, _, err := wire.ReadMessage(control); err != nil || kind != wire.TypeHelloAck {
		t.Fatalf("type %d, %v", kind, err)
	}
	return conn, control
}

// ended fails unless the relay ends the connection soon.
func ended(t *testing.T, conn *quic.Conn, soon time.Duration) {
	t.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(soon):
		t.Fatalf("after %v the connection still stands", soon)
	}
}

// endedWith fails unless the relay ends the connection soon, with that code.
func endedWith(t *testing.T, conn *quic.Conn, code quic.ApplicationErrorCode, soon time.Duration) {
	t.Helper()
	ended(t, conn, soon)
	cause, ok := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context()))
	if !ok || !cause.Remote || cause.ErrorCode != code {
		t.Errorf("the connection ended with %v, not code %d", context.Cause(conn.Context()), code)
	}
}

// undisturbed is a live session, and fails the test if it is not one at the end.
func undisturbed(t *testing.T) (n *node, token wire.Token) {
	t.Helper()
	n, d, s := standing(t)
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	t.Cleanup(func() {
		bothWays(t, client, daemon)
		again, daemon, _ := n.pair(s, d)
		bothWays(t, again, daemon)
	})
	return n, n.token("stranger")
}

// relayBodies are well-formed messages of every type.
func relayBodies() map[wire.MessageType][]byte {
	signature := make([]byte, 64)
	framed := map[wire.MessageType][]byte{
		wire.TypeHello:       wire.Hello{Signature: signature}.Append(nil),
		wire.TypeHelloAck:    wire.HelloAck{Address: "a:1"}.Append(nil),
		wire.TypeRegister:    wire.Register{RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: signature}.Append(nil),
		wire.TypeRegisterAck: wire.RegisterAck{}.Append(nil),
		wire.TypeUnregister:  wire.Unregister{}.Append(nil),
		wire.TypeKept:        wire.Kept{}.Append(nil),
		wire.TypeHeartbeat:   wire.AppendHeartbeat(nil),
		wire.TypeJoin:        wire.Join{Signature: signature}.Append(nil),
		wire.TypePreface:     wire.Preface{}.Append(nil),
	}
	bodies := make(map[wire.MessageType][]byte, len(framed))
	for kind, message := range framed {
		bodies[kind] = message[3:]
	}
	return bodies
}

func TestGarbageDatagramsDisturbNobody(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	conn, err := net.Dial("udp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for size := 1; size < 1500; size++ {
		garbage := make([]byte, size)
		if _, err := rand.Read(garbage); err != nil {
			t.Fatal(err)
		}
		switch size % 4 {
		case 0: // as the first packet of a connection begins
			copy(garbage, "\xc0\x00\x00\x00\x01\x08")
		case 1: // another version
			copy(garbage, "\xc0\xff\xff\xff\xff\x08")
		}
		if _, err := conn.Write(garbage); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnotherProtocolIsNotSpoken(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	for _, protocol := range []string{"h3", "openscope-relay/2", "openscope-relay/"} {
		if _, err := n.dialStranger(t, protocol); err == nil {
			t.Errorf("%s was spoken", protocol)
		}
	}
}

func TestWhoSaysNothingIsEnded(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	whole := wire.Hello{Signature: make([]byte, 64)}.Append(nil)
	conns := map[string]*quic.Conn{}
	for name, said := range map[string][]byte{
		"nothing": nil, "one byte": whole[:1], "a head": whole[:3], "all but a byte": whole[:len(whole)-1],
	} {
		conns[name] = n.stranger(t, wire.ALPN)
		if said != nil {
			says(t, conns[name], said)
		}
	}
	for name, conn := range conns {
		t.Run(name, func(t *testing.T) { endedWith(t, conn, tunnel.CodeRefused, wire.FirstBytes+2*time.Second) })
	}
}

func TestAPeerOpensOneStream(t *testing.T) {
	t.Parallel()
	n, token := undisturbed(t)
	conn, _ := n.proved(t, token)
	if _, err := conn.OpenStream(); err == nil {
		t.Error("a second stream was opened")
	}
	if _, err := conn.OpenUniStream(); err == nil {
		t.Error("a stream of one direction was opened")
	}
}

// A first message that is no hello and no join, as it must be to the byte,
// ends the connection.
func TestAMalformedFirstMessageEndsTheConnection(t *testing.T) {
	t.Parallel()
	n, _ := undisturbed(t)
	first := map[string][]byte{
		"an unknown type":   wire.AppendMessage(nil, 0, nil),
		"257 bytes":         wire.AppendMessage(nil, wire.TypeHello, make([]byte, 254)),
		"65,538 bytes":      wire.AppendMessage(nil, wire.TypeJoin, bytes.Repeat([]byte{1}, 1<<16-1)),
		"an endless length": {byte(wire.TypeHello), 0xff, 0xff},
	}
	for kind, body := range relayBodies() {
		if kind == wire.TypeHello || kind == wire.TypeJoin {
			other := bytes.Clone(body)
			other[0]++
			first[fmt.Sprintf("type %d of another version", kind)] = wire.AppendMessage(nil, kind, other)
		}
		first[fmt.Sprintf("type %d", kind)] = wire.AppendMessage(nil, kind, body)
		first[fmt.Sprintf("type %d, truncated", kind)] = wire.AppendMessage(nil, kind, body[:len(body)-1])
		first[fmt.Sprintf("type %d, empty", kind)] = wire.AppendMessage(nil, kind, nil)
		first[fmt.Sprintf("type %d, and a byte", kind)] = wire.AppendMessage(nil, kind, append(bytes.Clone(body), 0))
	}
	for name, message := range first {
		t.Run(name, func(t *testing.T) {
			conn := n.stranger(t, wire.ALPN)
			says(t, conn, message)
			endedWith(t, conn, tunnel.CodeRefused, 2*time.Second)
		})
	}
}

// So does a message that is malformed, or out of place, from a daemon.
func TestAMalformedMessageEndsADaemonsConnection(t *testing.T) {
	t.Parallel()
	n, token := undisturbed(t)
	later := map[string][]byte{
		"an unknown type": wire.AppendMessage(nil, 200, nil),
	}
	for kind, body := range relayBodies() {
		switch kind {
		case wire.TypeRegister, wire.TypeUnregister, wire.TypeKept, wire.TypeHeartbeat:
			later[fmt.Sprintf("type %d, truncated", kind)] = wire.AppendMessage(nil, kind, body[:len(body)-1])
			later[fmt.Sprintf("type %d, empty", kind)] = wire.AppendMessage(nil, kind, nil)
			later[fmt.Sprintf("type %d, and a byte", kind)] = wire.AppendMessage(nil, kind, append(bytes.Clone(body), 0))
		default:
			later[fmt.Sprintf("type %d", kind)] = wire.AppendMessage(nil, kind, body)
		}
	}
	for name, message := range later {
		t.Run(name, func(t *testing.T) {
			conn, control := n.proved(t, token)
			writes(control, message)
			endedWith(t, conn, tunnel.CodeRefused, 2*time.Second)
		})
	}
	for name, message := range map[string][]byte{
		"257 bytes":    wire.AppendMessage(nil, wire.TypeHeartbeat, make([]byte, 254)),
		"half of one":  wire.AppendHeartbeat(nil)[:20],
		"65,538 bytes": wire.AppendMessage(nil, wire.TypeRegister, make([]byte, 1<<16-1)),
	} {
		t.Run(name, func(t *testing.T) {
			conn, control := n.proved(t, token)
			writes(control, message)
			_ = control.Close() // it may have been ended already
			ended(t, conn, 2*time.Second)
		})
	}
}

func TestWellFormedMessagesOfADaemonAreTaken(t *testing.T) {
	t.Parallel()
	n, token := undisturbed(t)
	_, control := n.proved(t, token)
	for _, kind := range []wire.MessageType{wire.TypeHeartbeat, wire.TypeUnregister, wire.TypeKept, wire.TypeRegister} {
		if _, err := control.Write(wire.AppendMessage(nil, kind, relayBodies()[kind])); err != nil {
			t.Fatal(err)
		}
	}
	if kind, body, err := wire.ReadMessage(control); err != nil || kind != wire.TypeRegisterAck || body[16] != byte(wire.RegisterRefused) {
		t.Errorf("type %d, %x: %v", kind, body, err)
	}
}
