package relay_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/relay"
	"openscope/wire"
)

// answer is all that a refused client learns.
type answer struct {
	code   quic.ApplicationErrorCode
	reason string
	bytes  int
}

// join says join on a connection of its own and waits for the answer.
func (n *node) join(t *testing.T, rid wire.RendezvousID, key ed25519.PrivateKey) answer {
	t.Helper()
	conn := n.stranger(t, wire.ALPN)
	state := conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	stream := says(t, conn, wire.Join{RID: rid, Signature: wire.SignJoin(key, [32]byte(exporter), rid)}.Append(nil))
	got, err := stream.Read(make([]byte, 1))
	if err == nil {
		t.Fatal("it was let in")
	}
	select { // the stream is told first
	case <-conn.Context().Done():
	case <-time.After(patience):
		t.Fatal("the relay does not hang up")
	}
	cause, ok := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context()))
	if !ok {
		t.Fatalf("the connection ended with %v", context.Cause(conn.Context()))
	}
	return answer{cause.ErrorCode, cause.ErrorMessage, got}
}

// L5, through sockets: guesses find nothing, and are answered as a known rid
// with a bad proof, or with no right left, is.
func TestEveryRefusalLooksTheSame(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t, limited(relay.Limits{ConnectionsPerAddress: 1 << 20, HandshakesPerAddress: 1e6, Handshakes: 1e6}))
	spent := n.daemon(n.limitedToken("spent", relay.TokenLimits{Bytes: 1}, nil))
	used := newSession(t).standOn(t, spent)
	client, inside, _ := n.pair(used, spent)
	if _, err := client.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := inside.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the token is not spent: %v", err)
	}
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want := n.join(t, s.rid, stranger)
	if got := n.join(t, used.rid, used.join); got != want {
		t.Errorf("a token that is spent: %+v, and not %+v", got, want)
	}
	for range socketJoins {
		var rid wire.RendezvousID
		_, _ = rand.Read(rid[:])
		if got := n.join(t, rid, stranger); got != want {
			t.Fatalf("%x: %+v, and not %+v", rid, got, want)
		}
	}
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
}
