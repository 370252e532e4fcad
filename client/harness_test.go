package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipeLeg is a leg in memory.
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

// scriptedDaemon has the real identity and the real handshake, and after it
// says whatever the test has it say.
type scriptedDaemon struct {
	t        *testing.T
	key      ed25519.PrivateKey
	secret   wire.Secret
	handle   handle.Handle
	identity *handle.RecipientIdentity

	mu      sync.Mutex
	pending map[[16]byte]channel.Transcript
	subject ed25519.PublicKey
	answers byte             // handshakes
	last    channel.Finished // what the newest client said
}

func newScriptedDaemon(t *testing.T, sealed bool) *scriptedDaemon {
	t.Helper()
	d := &scriptedDaemon{t: t, pending: make(map[[16]byte]channel.Transcript)}
	var errs [3]error
	_, d.key, errs[0] = ed25519.GenerateKey(rand.Reader)
	d.secret, errs[1] = wire.NewSecret(rand.Reader)
	d.identity, errs[2] = handle.NewRecipientIdentity(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	d.handle = handle.Handle{
		Sealed: sealed, RID: wire.RendezvousID{1}, Fingerprint: channel.Fingerprint(d.key.Public().(ed25519.PublicKey)),
		HardLimit: time.Now().Add(30 * time.Minute).Truncate(time.Second), Relays: []wire.Relay{{Address: "127.0.0.1:1"}},
	}
	if !sealed {
		d.handle.Secret = d.secret
		return d
	}
	var err error
	d.handle.Enc, d.handle.Box, err = channel.SealSecret(rand.Reader, d.identity.X25519().PublicKey(), d.handle.Header(), d.secret)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *scriptedDaemon) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	mode, recipient := channel.Bearer, []byte(nil)
	if d.handle.Sealed {
		mode, recipient = channel.Sealed, d.identity.X25519().PublicKey().Bytes()
	}
	th1b := channel.NewTranscript(mode, d.handle.Hash(), recipient, rid).WithMsg1(msg1).WithProof(encR)
	d.mu.Lock()
	d.answers++
	id := [16]byte{d.answers}
	d.mu.Unlock()
	answer := channel.Answer{P2: channel.P2(d.key.Public().(ed25519.PublicKey), id, [32]byte{})}
	answer.Signature = ed25519.Sign(d.key, th1b.DaemonSignedBytes(enc, answer.P2))
	return answer, nil
}

func (d *scriptedDaemon) Accept(_ context.Context, _ [16]byte, _, body []byte) (channel.Acceptance, error) {
	f, err := channel.ParseFinished(body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subject, d.last = f.Key, f
	return channel.Acceptance{Challenge: [8]byte{1}, Remaining: 10 * time.Minute}, err
}

func (d *scriptedDaemon) lastFinished() channel.Finished {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// passport is an honest one for the key that asked.
func (d *scriptedDaemon) passport() passport.Passport {
	d.mu.Lock()
	defer d.mu.Unlock()
	return passport.Passport{
		Session: d.handle.RID, Daemon: d.handle.Fingerprint, Issuer: "you", Recipient: "vendor-b", Subject: d.subject,
		NotBefore: time.Now().Truncate(time.Second), Expires: time.Now().Add(10 * time.Minute).Truncate(time.Second),
		Grant: passport.Grant{Verbs: []passport.Verb{{Name: "test.verb", Class: passport.Read}}},
	}
}

func (d *scriptedDaemon) signed(p passport.Passport) passport.Signed {
	s, err := passport.Sign(d.key, p)
	if err != nil {
		d.t.Error(err)
	}
	return s
}

// join answers the client's join with a handshake, and then with the script.
func (d *scriptedDaemon) join(script func(*channel.Conn)) func(context.Context, tunnel.ClientConfig) (wire.Leg, error) {
	return func(ctx context.Context, _ tunnel.ClientConfig) (wire.Leg, error) {
		ours, theirs := newLegs()
		cfg := channel.DaemonConfig{
			Mode: channel.Bearer, RID: d.handle.RID, HandleHash: d.handle.Hash(), Keys: channel.NewKeys(d.secret),
			Authority: d, Guard: channel.NewGuard(time.Now), Rand: rand.Reader,
		}
		if d.handle.Sealed {
			cfg.Mode, cfg.Recipient = channel.Sealed, d.identity.X25519().PublicKey()
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer theirs.Reset()
			conn, err := channel.Daemon(d.t.Context(), theirs, cfg)
			if err == nil {
				script(conn)
			}
		}()
		d.t.Cleanup(func() { theirs.Reset(); <-done })
		return ours, nil
	}
}

// connect connects to a daemon with a script.
func (d *scriptedDaemon) connect(script func(*channel.Conn)) (*Session, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	s, err := Connect(ctx, Config{
		Handle: d.handle, Identity: d.identity, StateDir: d.t.TempDir(), Rand: rand.Reader, Join: d.join(script),
	})
	if err == nil {
		d.t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// welcome sends the honest passport.
func (d *scriptedDaemon) welcome(c *channel.Conn) {
	_ = c.Write(channel.TypePassport, d.signed(d.passport()))
}

// nextCall reads records until a CALL.
func nextCall(c *channel.Conn) (req call.Request, hash [32]byte, ok bool) {
	for {
		t, body, err := c.Read()
		if err != nil {
			return req, hash, false
		}
		if t != channel.TypeCall {
			continue
		}
		at := len(body) - signatureSize
		req, err = call.ParseRequest(body[:at])
		return req, call.RequestHash(body[:at], body[at:]), err == nil
	}
}

// end answers a call as an honest daemon does.
func (d *scriptedDaemon) end(c *channel.Conn, r call.Result, request [32]byte) {
	body := r.Append(nil)
	_ = c.Write(channel.TypeEnd, body, call.SignResult(d.key, d.handle.RID, request, body))
}

// drain reads until the connection ends.
func drain(c *channel.Conn) {
	for {
		if _, _, err := c.Read(); err != nil {
			return
		}
	}
}

// resealed is the daemon's handle again, with other relays in it.
func (d *scriptedDaemon) resealed(relays ...wire.Relay) {
	d.t.Helper()
	d.handle.Relays = relays
	if !d.handle.Sealed {
		return
	}
	var err error
	d.handle.Enc, d.handle.Box, err = channel.SealSecret(rand.Reader, d.identity.X25519().PublicKey(), d.handle.Header(), d.secret)
	if err != nil {
		d.t.Fatal(err)
	}
}
