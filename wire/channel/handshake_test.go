package channel

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openscope/wire"
)

func TestBothEndsAgreeOnEverything(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			cfg := s.clientConfig(mode)
			replaces, resume := [16]byte{9}, Resume{ID: [16]byte{4}, Stdout: 5, Stderr: 6}
			cfg.TakeOver = func() ([16]byte, []Resume) { return replaces, []Resume{resume} }
			client, daemon, clientErr, daemonErr := shake(t, s.daemonConfig(mode), cfg)
			if err := errors.Join(clientErr, daemonErr); err != nil {
				t.Fatal(err)
			}
			if client.TH2() != daemon.TH2() || client.ID() != daemon.ID() || !bytes.Equal(client.SessionWords(), daemon.SessionWords()) {
				t.Error("the ends differ in transcript, id or words")
			}
			if len(client.SessionWords()) != 32 || client.TH2() == [32]byte{} {
				t.Error("words or transcript are empty")
			}
			if client.Challenge() != [8]byte{7} || client.Remaining() != 90*time.Second {
				t.Errorf("READY came as %v, %v", client.Challenge(), client.Remaining())
			}
			if !client.DaemonKey().Equal(s.daemon.Public()) {
				t.Error("the client has another daemon's key")
			}
			last := s.authority.last
			if last.Replaces != replaces || len(last.Resume) != 1 || last.Resume[0] != resume {
				t.Errorf("FINISHED came as %+v", last)
			}
		})
	}
}

func TestTwoHandshakesShareNothing(t *testing.T) {
	s := newSite(t)
	a, _ := connected(t, s, Sealed)
	b, _ := connected(t, s, Sealed)
	if a.TH2() == b.TH2() || a.ID() == b.ID() || bytes.Equal(a.SessionWords(), b.SessionWords()) {
		t.Error("two handshakes of one session have something in common")
	}
}

// tap records what is written to a leg.
type tap struct {
	*pipeLeg
	written [][]byte
}

func (l *tap) Write(p []byte) (int, error) {
	l.written = append(l.written, bytes.Clone(p))
	return l.pipeLeg.Write(p)
}

func TestMessagesHaveTheSizesOfTheSpecification(t *testing.T) {
	for name, want := range map[string]struct {
		mode Mode
		msg2 int
	}{"sealed": {Sealed, 1346}, "bearer": {Bearer, 1314}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			ours, theirs := newLegs()
			up, down := &tap{pipeLeg: ours}, &tap{pipeLeg: theirs}
			done := make(chan error)
			go func() {
				_, err := Daemon(t.Context(), down, s.daemonConfig(want.mode))
				done <- err
			}()
			_, err := Client(t.Context(), up, s.clientConfig(want.mode))
			if err := errors.Join(err, <-done); err != nil {
				t.Fatal(err)
			}
			defer ours.Reset()
			defer theirs.Reset()
			if len(up.written[0]) != 1282 || len(down.written[0]) != want.msg2 {
				t.Errorf("msg1 has %d bytes, msg2 %d", len(up.written[0]), len(down.written[0]))
			}
		})
	}
}

func TestWhoIsNotWhoTheyShouldBeGetsNoSession(t *testing.T) {
	other := newSite(t)
	for _, c := range []struct {
		name   string
		mode   Mode
		change func(*DaemonConfig, *ClientConfig)
		client error // what the client's error has to be, where it matters
	}{
		{"another S", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.Keys = NewKeys(other.secret) }, nil},
		{"another S, bearer", Bearer, func(_ *DaemonConfig, c *ClientConfig) { c.Keys = NewKeys(other.secret) }, nil},
		{"another handle", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.HandleHash[0] ^= 1 }, nil},
		{"another rendezvous id", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.RID[0] ^= 1 }, nil},
		{"the other mode", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.Mode, c.Recipient = Bearer, nil }, nil},
		{"another recipient's X25519 key", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.Recipient = other.opens }, nil},
		{"the right S sent by the wrong recipient", Sealed, func(d *DaemonConfig, _ *ClientConfig) { d.Recipient = other.recipient.PublicKey() }, nil},
		{"another signing key", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.Signer = wire.SigningKeyOf(other.signer) }, nil},
		{"another daemon", Sealed, func(_ *DaemonConfig, c *ClientConfig) { c.Fingerprint[31] ^= 0x80 }, ErrWrongDaemon},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			d, client := s.daemonConfig(c.mode), s.clientConfig(c.mode)
			c.change(&d, &client)
			_, _, clientErr, daemonErr := shake(t, d, client)
			if !errors.Is(clientErr, ErrHandshake) || !errors.Is(daemonErr, ErrHandshake) {
				t.Errorf("client: %v; daemon: %v; want two failed handshakes", clientErr, daemonErr)
			}
			if c.client != nil && !errors.Is(clientErr, c.client) {
				t.Errorf("client: %v, want %v", clientErr, c.client)
			}
			if s.authority.acceptances() != 0 {
				t.Error("the authority accepted it")
			}
		})
	}
}

// impostor answers as a daemon that has every key of the session but the
// identity.
type impostor struct {
	*testAuthority
	key ed25519.PrivateKey
}

func (a impostor) Answer(ctx context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (Answer, error) {
	answer, err := a.testAuthority.Answer(ctx, rid, msg1, encR, enc)
	if err != nil {
		return answer, err
	}
	transcript := NewTranscript(Sealed, a.site.hash, a.site.recipient.PublicKey().Bytes(), rid).WithMsg1(msg1).WithProof(encR)
	answer.Signature = ed25519.Sign(a.key, transcript.DaemonSignedBytes(enc, answer.P2))
	return answer, nil
}

func TestTheFingerprintAloneIsNotEnough(t *testing.T) {
	s := newSite(t)
	d := s.daemonConfig(Sealed)
	d.Authority = impostor{testAuthority: s.authority, key: newSite(t).daemon}
	_, _, clientErr, _ := shake(t, d, s.clientConfig(Sealed))
	if !errors.Is(clientErr, ErrWrongDaemon) {
		t.Errorf("a daemon that shows the right key and signs with another: %v", clientErr)
	}
}

func TestTheClaimIsDurableBeforeFINISHED(t *testing.T) {
	s := newSite(t)
	refused := errors.New("the disk is full")
	cfg := s.clientConfig(Bearer)
	cfg.BeforeFinished = func() error { return refused }
	_, _, clientErr, _ := shake(t, s.daemonConfig(Bearer), cfg)
	if !errors.Is(clientErr, refused) || s.authority.acceptances() != 0 {
		t.Errorf("the client went on: %v", clientErr)
	}
}

func TestLowOrderPointsAreRefused(t *testing.T) {
	// The points of order 1, 2, 4 and 8 on the curve and its twist, and their
	// encodings beyond the field's prime.
	points := []string{
		strings.Repeat("00", 32),
		"01" + strings.Repeat("00", 31),
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
	s := newSite(t)
	cfg := s.clientConfig(Sealed)
	th0 := NewTranscript(Sealed, s.hash, s.recipient.PublicKey().Bytes(), s.rid)
	for _, text := range points {
		var point []byte
		if _, err := fmt.Sscanf(text, "%x", &point); err != nil {
			t.Fatal(err)
		}
		if err := checkX25519(point); err == nil {
			t.Errorf("%s passes", text)
		}
		f, err := cfg.begin(th0)
		if err != nil {
			t.Fatal(err)
		}
		ek := bytes.Clone(f.msg1[ekAt:commitAt])
		copy(ek[xwingKey-x25519Size:], point)
		d := s.daemonConfig(Sealed)
		if _, err := d.answer(t.Context(), &memoryLeg{}, th0, newMsg1(cfg.Keys, th0, ek, f.nonce)); err == nil {
			t.Errorf("msg1 with the point %s was answered", text)
		}
	}
	good, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkX25519(good.PublicKey().Bytes()); err != nil {
		t.Errorf("an honest key: %v", err)
	}
}

func TestMsg1IsAnsweredOnce(t *testing.T) {
	s := newSite(t)
	cfg, d := s.clientConfig(Sealed), s.daemonConfig(Sealed)
	th0 := d.transcript()
	f, err := cfg.begin(th0)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, errReplay, errReplay} {
		leg := &memoryLeg{Reader: bytes.NewReader(f.msg1)}
		_, err := daemonHandshake(t.Context(), leg, &d)
		if want == nil && !errors.Is(err, io.EOF) { // it waits for FINISHED
			t.Errorf("time %d: %v", i, err)
		}
		if want != nil && (!errors.Is(err, want) || leg.written.Len() > 0) {
			t.Errorf("time %d: %v, %d bytes answered", i, err, leg.written.Len())
		}
	}
}

func TestTheGuardHoldsTheRateAndForgetsTheOldest(t *testing.T) {
	now := time.Unix(1000, 0)
	g := NewGuard(func() time.Time { return now })
	admitted := 0
	for i := range 100 {
		if g.admit([]byte{byte(i)}) == nil {
			admitted++
		}
	}
	if admitted != msg2Bursts {
		t.Errorf("%d admitted at once, want %d", admitted, msg2Bursts)
	}
	first := []byte("the first key")
	now = now.Add(time.Hour)
	if err := g.admit(first); err != nil {
		t.Fatal(err)
	}
	for i := range seenKeys {
		now = now.Add(time.Second)
		if err := g.admit(fmt.Appendf(nil, "key %d", i)); err != nil {
			t.Fatal(err)
		}
		if i == seenKeys-2 {
			if err := g.admit(first); !errors.Is(err, errReplay) {
				t.Errorf("after %d others the first is %v", i+1, err)
			}
		}
	}
	if len(g.seen) != seenKeys || len(g.ring) != seenKeys {
		t.Errorf("the guard remembers %d keys in a ring of %d", len(g.seen), len(g.ring))
	}
}

func TestAClientThatStallsIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		send  func(*site, *pipeLeg)
		after time.Duration
	}{
		{"no msg1", func(*site, *pipeLeg) {}, 5 * time.Second},
		{"half of msg1", func(_ *site, l *pipeLeg) { _, _ = l.Write(make([]byte, Msg1Size/2)) }, 5 * time.Second},
		{"no FINISHED", func(s *site, l *pipeLeg) {
			cfg := s.clientConfig(Sealed)
			th0 := NewTranscript(Sealed, s.hash, s.recipient.PublicKey().Bytes(), s.rid)
			f, _ := cfg.begin(th0)
			_, _ = l.Write(f.msg1)
			_, _ = io.ReadFull(l, make([]byte, Msg2Size(Sealed)))
		}, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				ours, theirs := newLegs()
				defer ours.Reset()
				go c.send(s, ours)
				began := time.Now()
				_, err := Daemon(t.Context(), theirs, s.daemonConfig(Sealed))
				if took := time.Since(began); err == nil || took != c.after {
					t.Errorf("given up after %v (%v), want %v", took, err, c.after)
				}
			})
		})
	}
}

// failingRand fails after n bytes.
type failingRand struct{ left int }

func (r *failingRand) Read(p []byte) (int, error) {
	if r.left < len(p) {
		return 0, errors.New("no randomness")
	}
	r.left -= len(p)
	return rand.Read(p)
}

func TestWithoutRandomnessThereIsNoHandshake(t *testing.T) {
	if _, err := wire.NewSecret(&failingRand{left: 31}); err == nil {
		t.Error("a secret was drawn from 31 bytes")
	}
	s := newSite(t)
	if _, _, err := SealSecret(&failingRand{left: 31}, s.recipient.PublicKey(), nil, s.secret); err == nil {
		t.Error("a handle was sealed")
	}
	// The client draws 32 bytes for its key and 32 for its nonce, the daemon 32
	// for the recipient's proof and 64 for X-Wing.
	for left := range 64 {
		cfg := s.clientConfig(Sealed)
		cfg.Rand = &failingRand{left: left}
		if _, err := cfg.begin(NewTranscript(Sealed, s.hash, nil, s.rid)); err == nil {
			t.Fatalf("msg1 was made from %d bytes of randomness", left)
		}
	}
	cfg := s.clientConfig(Sealed)
	th0 := NewTranscript(Sealed, s.hash, s.recipient.PublicKey().Bytes(), s.rid)
	f, err := cfg.begin(th0)
	if err != nil {
		t.Fatal(err)
	}
	for left := range 96 {
		d := s.daemonConfig(Sealed)
		d.Rand = &failingRand{left: left}
		if _, err := d.answer(t.Context(), &memoryLeg{}, th0, f.msg1); err == nil {
			t.Fatalf("msg2 was made from %d bytes of randomness", left)
		}
	}
}
