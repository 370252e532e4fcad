package relay_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/relay"
	"openscope/wire"
)

func TestARelayThatLacksSomethingIsNotBuilt(t *testing.T) {
	t.Parallel()
	tokens, err := relay.OpenTokenFile(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }
	for name, cfg := range map[string]relay.Config{
		"nothing":        {},
		"no certificate": {Conn: &net.UDPConn{}, Tokens: tokens},
		"no socket":      {Certificate: certificate, Tokens: tokens},
		"no tokens":      {Certificate: certificate, Conn: &net.UDPConn{}},
	} {
		if _, err := relay.New(cfg); err == nil {
			t.Errorf("%s: it was built", name)
		}
	}
}

func TestRunReturnsWhenItCannotServe(t *testing.T) {
	t.Parallel()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := relay.OpenTokenFile(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	none := errors.New("no certificate today")
	r, err := relay.New(relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, none }, Conn: socket, Tokens: tokens,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); !errors.Is(err, none) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := socket.WriteTo(nil, socket.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("its socket: %v", err)
	}
}

func TestRunEndsWhoeverIsConnected(t *testing.T) { onEveryRung(t, testRunEndsWhoeverIsConnected) }

func testRunEndsWhoeverIsConnected(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by)
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	one, other, _ := n.pair(s, d) // a leg that ended, and is not closed
	if err := errors.Join(one.CloseWrite(), other.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	silent := n.stranger(t, wire.ALPN)
	n.cancel()
	select {
	case <-n.ended:
	case <-time.After(3 * time.Second):
		t.Fatal("Run has not returned")
	}
	lost(t, d, time.Second)
	if !errors.Is(d.Err(), wire.ErrDraining) {
		t.Errorf("the daemon is told %v", d.Err())
	}
	cutFor(t, client, by, wire.ErrDraining)
	ended(t, silent, time.Second)
}

// Between a handshake's end and the relay's taking the connection there is a
// moment, and whoever stands in it when the relay goes hears of it too.
func TestRunEndsWhoeverWaitsToBeTaken(t *testing.T) {
	t.Parallel()
	for range 5 {
		n := startNode(t)
		dialing, giveUp := context.WithCancel(t.Context())
		dialed := make(chan *quic.Conn)
		for range 32 {
			go func() {
				conn, _ := quic.DialAddr(dialing, n.address, strangersTLS(wire.ALPN), &quic.Config{})
				dialed <- conn
			}()
		}
		var stand []*quic.Conn
		for range 32 {
			if conn := <-dialed; conn != nil {
				stand = append(stand, conn)
			}
			if len(stand) == 4 {
				n.stop()
				giveUp()
			}
		}
		giveUp()
		for _, conn := range stand {
			ended(t, conn, 3*time.Second)
		}
	}
}

// A relay that was killed says nothing: its successor, with the same
// certificate, answers the daemon's next heartbeat.
func TestAfterARestartTheDaemonNoticesAndComesBack(t *testing.T) {
	onEveryRung(t, testAfterARestartTheDaemonNoticesAndComesBack)
}

func testAfterARestartTheDaemonNoticesAndComesBack(t *testing.T, by rungs) {
	n := startNode(t)
	n.by = by
	token := n.token("first")
	d := n.daemon(token)
	s := newSession(t).standOn(t, d)
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)

	pin := n.pin
	n.kill()
	n.start()
	if n.pin != pin {
		t.Fatal("the relay has another identity")
	}
	lost(t, d, 5*time.Second)
	refused(t, n.client(s), wire.ErrRefused) // a registration belongs to its connection

	again := n.daemon(token)
	s.standOn(t, again)
	client, daemon, _ = n.pair(s, again)
	bothWays(t, client, daemon)
}

// The daemon may be back before the relay has noticed that it went.
func TestASessionMovesToItsDaemonsNewConnection(t *testing.T) {
	onEveryRung(t, testASessionMovesToItsDaemonsNewConnection)
}

func testASessionMovesToItsDaemonsNewConnection(t *testing.T, by rungs) {
	n, old, s := standingBy(t, by)
	fresh := n.daemon(n.token("fresh"))
	s.standOn(t, fresh)
	client, daemon, _ := n.pair(s, fresh)
	bothWays(t, client, daemon)
	if err := old.Close(); err != nil { // and what the old one leaves behind is not this
		t.Fatal(err)
	}
	for range 5 {
		client, daemon, _ := n.pair(s, fresh)
		bothWays(t, client, daemon)
	}
}

// files is what a directory holds: names, modes, times and content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		all[path] = info.Mode().String() + info.ModTime().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			all[path] += string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestServingWritesNothing(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	token := n.token("first")
	before := files(t, n.dir)
	d := n.daemon(token)
	s := newSession(t).standOn(t, d)
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	refused(t, n.client(newSession(t)), wire.ErrRefused)
	client.Reset()
	if err := errors.Join(d.Unregister(s.rid), d.Close()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if after := files(t, n.dir); !maps.Equal(before, after) {
		t.Errorf("the directory was\n%q\nand is\n%q", before, after)
	}
	if len(before) < 4 {
		t.Errorf("the directory holds only %d names", len(before))
	}
}

func TestTheCertificateStaysAndItsKeyIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "at", "need")
	_, first, err := relay.SelfSigned(dir, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := relay.SelfSigned(dir, rand.Reader, time.Now())
	if err != nil || first != second {
		t.Errorf("the pin was %v and is %v: %v", first, second, err)
	}
	info, err := os.Stat(filepath.Join(dir, "certificate.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	if _, other, err := relay.SelfSigned(t.TempDir(), rand.Reader, time.Now()); err != nil || other == first {
		t.Errorf("another relay has the same pin: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "certificate.key"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := relay.SelfSigned(dir, rand.Reader, time.Now()); err == nil {
		t.Error("a torn key was taken")
	}
}
