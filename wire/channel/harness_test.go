package channel

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openscope/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipeLeg is a leg in memory: one pipe each way, so that each can be closed by
// itself.
type pipeLeg struct{ in, out net.Conn }

func newLegs() (client, daemon *pipeLeg) {
	upRead, upWrite := net.Pipe()
	downRead, downWrite := net.Pipe()
	return &pipeLeg{in: downRead, out: upWrite}, &pipeLeg{in: upRead, out: downWrite}
}

func (l *pipeLeg) Read(p []byte) (int, error)         { return l.in.Read(p) }
func (l *pipeLeg) Write(p []byte) (int, error)        { return l.out.Write(p) }
func (l *pipeLeg) CloseWrite() error                  { return l.out.Close() }
func (l *pipeLeg) Reset()                             { l.in.Close(); l.out.Close() }
func (l *pipeLeg) SetReadDeadline(t time.Time) error  { return l.in.SetReadDeadline(t) }
func (l *pipeLeg) SetWriteDeadline(t time.Time) error { return l.out.SetWriteDeadline(t) }

// memoryLeg reads what it was given and remembers what was written.
type memoryLeg struct {
	io.Reader
	written bytes.Buffer
}

func (l *memoryLeg) Write(p []byte) (int, error)      { return l.written.Write(p) }
func (l *memoryLeg) CloseWrite() error                { return nil }
func (l *memoryLeg) Reset()                           {}
func (l *memoryLeg) SetReadDeadline(time.Time) error  { return nil }
func (l *memoryLeg) SetWriteDeadline(time.Time) error { return nil }

// site is one session with both its ends.
type site struct {
	daemon    ed25519.PrivateKey
	recipient *ecdh.PrivateKey
	signer    ed25519.PrivateKey
	secret    wire.Secret
	rid       wire.RendezvousID
	hash      [32]byte
	authority *testAuthority
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{rid: wire.RendezvousID{1, 2, 3}, hash: sha256.Sum256([]byte("a handle"))}
	var errs [4]error
	_, s.daemon, errs[0] = ed25519.GenerateKey(rand.Reader)
	_, s.signer, errs[1] = ed25519.GenerateKey(rand.Reader)
	s.recipient, errs[2] = ecdh.X25519().GenerateKey(rand.Reader)
	s.secret, errs[3] = wire.NewSecret(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	s.authority = &testAuthority{site: s, pending: make(map[[16]byte]pendingAnswer)}
	return s
}

func (s *site) opens() *ecdh.PrivateKey { return s.recipient }

func (s *site) daemonConfig(mode Mode) DaemonConfig {
	c := DaemonConfig{
		Mode: mode, RID: s.rid, HandleHash: s.hash, Keys: NewKeys(s.secret),
		Authority: s.authority, Guard: NewGuard(time.Now), Rand: rand.Reader,
	}
	if mode == Sealed {
		c.Recipient = s.recipient.PublicKey()
	}
	return c
}

func (s *site) clientConfig(mode Mode) ClientConfig {
	c := ClientConfig{
		Mode: mode, RID: s.rid, HandleHash: s.hash, Fingerprint: Fingerprint(s.daemon.Public().(ed25519.PublicKey)),
		Keys: NewKeys(s.secret), Signer: wire.SigningKeyOf(s.signer), Rand: rand.Reader,
	}
	if mode == Sealed {
		c.Recipient = s.opens
	}
	return c
}

// testAuthority holds the identity key, and judges as the daemon's core does:
// by a transcript of its own.
type testAuthority struct {
	site *site

	mu       sync.Mutex
	pending  map[[16]byte]pendingAnswer
	accepted int
	last     Finished
}

type pendingAnswer struct {
	transcript Transcript
	enc        []byte
	commitment [32]byte
}

func (a *testAuthority) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (Answer, error) {
	mode, recipient := Bearer, []byte(nil)
	if encR != nil {
		mode, recipient = Sealed, a.site.recipient.PublicKey().Bytes()
	}
	t := NewTranscript(mode, a.site.hash, recipient, rid).WithMsg1(msg1).WithProof(encR)
	commitment, err := Commitment(msg1)
	if err != nil {
		return Answer{}, err
	}
	var id [16]byte
	var nonce [32]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Answer{}, err
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return Answer{}, err
	}
	a.mu.Lock()
	a.pending[id] = pendingAnswer{transcript: t, enc: bytes.Clone(enc), commitment: commitment}
	a.mu.Unlock()
	p2 := P2(a.site.daemon.Public().(ed25519.PublicKey), id, nonce)
	return Answer{ConnID: id, P2: p2, Signature: ed25519.Sign(a.site.daemon, t.DaemonSignedBytes(enc, p2))}, nil
}

func (a *testAuthority) Accept(_ context.Context, id [16]byte, ct2, body []byte) (Acceptance, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pending[id]
	finished, err := ParseFinished(body)
	if err != nil {
		return Acceptance{}, err
	}
	if err := finished.Verify(p.transcript.WithMsg2(p.enc, ct2), a.site.rid, p.commitment); err != nil {
		return Acceptance{}, err
	}
	if !finished.Key.Equal(a.site.signer.Public()) {
		return Acceptance{}, errors.New("not the registered key")
	}
	a.accepted++
	a.last = finished
	return Acceptance{Challenge: [8]byte{7}, Remaining: 90 * time.Second}, nil
}

func (a *testAuthority) acceptances() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.accepted
}

// shake runs both ends of a handshake against each other.
func shake(t testing.TB, d DaemonConfig, c ClientConfig) (client, daemon *Conn, clientErr, daemonErr error) {
	t.Helper()
	ours, theirs := newLegs()
	t.Cleanup(func() { ours.Reset(); theirs.Reset() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		daemon, daemonErr = Daemon(t.Context(), theirs, d)
	}()
	client, clientErr = Client(t.Context(), ours, c)
	<-done
	return client, daemon, clientErr, daemonErr
}

// connected is two ends that have shaken hands.
func connected(t testing.TB, s *site, mode Mode) (client, daemon *Conn) {
	t.Helper()
	client, daemon, clientErr, daemonErr := shake(t, s.daemonConfig(mode), s.clientConfig(mode))
	if err := errors.Join(clientErr, daemonErr); err != nil {
		t.Fatal(err)
	}
	return client, daemon
}

var modes = map[string]Mode{"sealed": Sealed, "bearer": Bearer}
