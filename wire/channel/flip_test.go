package channel

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"openscope/wire/handle"
)

// The promise of this file: whichever single bit of a handshake a relay flips,
// there is no session, on either side.

// clone is the secrets as they were: establishing a connection erases them.
func (s *secrets) clone() *secrets {
	key := func(k recordKey) recordKey { return recordKey{bytes.Clone(k.key), bytes.Clone(k.iv)} }
	return &secrets{
		finishedKey: bytes.Clone(s.finishedKey), readyKey: bytes.Clone(s.readyKey), words: bytes.Clone(s.words),
		toDaemon: key(s.toDaemon), toClient: key(s.toClient),
	}
}

// flips calls f with every message that differs from b in one bit.
func flips(b []byte, f func(bit int, flipped []byte)) {
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		f(bit, b)
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestEveryBitOfMsg1Counts(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			cfg, d := s.clientConfig(mode), s.daemonConfig(mode)
			f, err := cfg.begin(d.transcript())
			if err != nil {
				t.Fatal(err)
			}
			tried := 0
			flips(f.msg1, func(bit int, msg1 []byte) {
				tried++
				leg := &memoryLeg{Reader: bytes.NewReader(msg1)}
				_, err := daemonHandshake(t.Context(), leg, &d)
				if err == nil || errors.Is(err, io.EOF) || leg.written.Len() > 0 {
					t.Fatalf("bit %d of msg1 flipped: %v, %d bytes answered", bit, err, leg.written.Len())
				}
			})
			if s.authority.acceptances() != 0 || len(s.authority.pending) != 0 {
				t.Error("the authority was asked")
			}
			t.Logf("%d flips of msg1", tried)
		})
	}
}

func TestEveryBitOfMsg2Counts(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			cfg, d := s.clientConfig(mode), s.daemonConfig(mode)
			th0 := d.transcript()
			f, err := cfg.begin(th0)
			if err != nil {
				t.Fatal(err)
			}
			leg := &memoryLeg{}
			if _, err := d.answer(t.Context(), leg, th0, f.msg1); err != nil {
				t.Fatal(err)
			}
			open := func(raw []byte) error {
				m, err := parseMsg2(mode, raw)
				if err != nil {
					return err
				}
				_, err = cfg.verify(leg, th0.WithMsg1(f.msg1), f, m)
				return err
			}
			tried := 0
			flips(leg.written.Bytes(), func(bit int, msg2 []byte) {
				tried++
				if open(msg2) == nil {
					t.Fatalf("bit %d of msg2 flipped, and the client goes on", bit)
				}
			})
			if err := open(leg.written.Bytes()); err != nil {
				t.Fatalf("the message as it was: %v", err)
			}
			t.Logf("%d flips of msg2", tried)
		})
	}
}

// upToFinished is a handshake in which the client has believed msg2.
type upToFinished struct {
	client, daemon *Conn
	nonce          [32]byte
}

func newUpToFinished(t *testing.T, s *site, mode Mode) *upToFinished {
	t.Helper()
	cfg, d := s.clientConfig(mode), s.daemonConfig(mode)
	th0 := d.transcript()
	f, err := cfg.begin(th0)
	if err != nil {
		t.Fatal(err)
	}
	leg := &memoryLeg{}
	u := &upToFinished{nonce: f.nonce}
	if u.daemon, err = d.answer(t.Context(), leg, th0, f.msg1); err != nil {
		t.Fatal(err)
	}
	m, err := parseMsg2(mode, bytes.Clone(leg.written.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if u.client, err = cfg.verify(&memoryLeg{Reader: bytes.NewReader(nil)}, th0.WithMsg1(f.msg1), f, m); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestEveryBitOfFINISHEDAndREADYCounts(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			u := newUpToFinished(t, s, mode)
			cfg, d := s.clientConfig(mode), s.daemonConfig(mode)

			// The client writes FINISHED and finds nothing to read.
			up := &memoryLeg{Reader: bytes.NewReader(nil)}
			u.client.tx.leg, u.client.rx.leg = up, up
			_ = cfg.finish(u.client, u.nonce)
			record := up.written.Bytes()

			accept := func(record []byte) (*memoryLeg, error) {
				leg := &memoryLeg{Reader: bytes.NewReader(record)}
				return leg, d.accept(t.Context(), anew(u.daemon, leg))
			}
			tried := 0
			flips(record, func(bit int, finished []byte) {
				tried++
				if leg, err := accept(finished); err == nil || leg.written.Len() > 0 {
					t.Fatalf("bit %d of FINISHED flipped: %v, %d bytes answered", bit, err, leg.written.Len())
				}
			})
			if s.authority.acceptances() != 0 {
				t.Fatal("the authority accepted one")
			}
			t.Logf("%d flips of FINISHED", tried)

			leg, err := accept(record)
			if err != nil || s.authority.acceptances() != 1 {
				t.Fatalf("FINISHED as it was: %v", err)
			}
			ready := leg.written.Bytes()
			finish := func(ready []byte) error {
				leg := &memoryLeg{Reader: bytes.NewReader(ready)}
				return cfg.finish(anew(u.client, leg), u.nonce)
			}
			tried = 0
			flips(ready, func(bit int, flipped []byte) {
				tried++
				if finish(flipped) == nil {
					t.Fatalf("bit %d of READY flipped, and the client has a session", bit)
				}
			})
			t.Logf("%d flips of READY", tried)
			if err := finish(ready); err != nil {
				t.Fatalf("READY as it was: %v", err)
			}
		})
	}
}

// anew is the connection before its first record, on another leg.
func anew(c *Conn, leg *memoryLeg) *Conn {
	again := &Conn{
		leg: leg, id: c.id, transcript: c.transcript, daemonKey: c.daemonKey, nonce: c.nonce, ct2: c.ct2,
		keys: c.keys.clone(),
	}
	again.rx.leg, again.rx.dir, again.rx.allowed = leg, direction{aead: c.rx.dir.aead, iv: c.rx.dir.iv}, c.rx.allowed
	again.tx.leg, again.tx.dir = leg, direction{aead: c.tx.dir.aead, iv: c.tx.dir.iv}
	again.tx.writing = make(chan struct{}, 1)
	return again
}

func TestEveryBitOfTheHandleCounts(t *testing.T) {
	s := newSite(t)
	sealed := handle.Handle{
		Sealed: true, RID: s.rid, Fingerprint: [32]byte(bytes.Repeat([]byte{5}, 32)),
		HardLimit: hardLimit, Relays: relays,
	}
	var err error
	if sealed.Enc, sealed.Box, err = SealSecret(rand.Reader, s.recipient.PublicKey(), sealed.Header(), s.secret); err != nil {
		t.Fatal(err)
	}
	bearer := handle.Handle{RID: s.rid, Fingerprint: sealed.Fingerprint, HardLimit: hardLimit, Relays: relays, Secret: s.secret}
	s.hash = bearer.Hash()
	d := s.daemonConfig(Bearer)

	// Whoever edits a handle can write its checksum anew, so that is no
	// defence here.
	parsed := 0
	for name, h := range map[string]handle.Handle{"sealed": sealed, "bearer": bearer} {
		payload, prefix := payloadOf(t, h)
		flips(payload, func(bit int, flipped []byte) {
			got, err := handle.Parse(encodeHandle(prefix, flipped))
			if err != nil {
				return
			}
			parsed++
			if got.Sealed {
				if _, err := OpenSecret(s.recipient, got.Header(), got.Enc, got.Box); !errors.Is(err, ErrNotForThisKey) {
					t.Errorf("%s: bit %d flipped: it opens (%v)", name, bit, err)
				}
				return
			}
			cfg := s.clientConfig(Bearer)
			cfg.HandleHash, cfg.RID, cfg.Keys = got.Hash(), got.RID, NewKeys(got.Secret)
			f, err := cfg.begin(NewTranscript(Bearer, cfg.HandleHash, nil, cfg.RID))
			if err != nil {
				t.Fatal(err)
			}
			if checkMsg1(d.Keys, d.transcript(), f.msg1) == nil {
				t.Errorf("%s: bit %d flipped: the daemon answers", name, bit)
			}
		})
	}
	if parsed < 1000 {
		t.Errorf("only %d of the flipped handles could be read: the test shows little", parsed)
	}
	if opened, err := OpenSecret(s.recipient, sealed.Header(), sealed.Enc, sealed.Box); err != nil || !bytes.Equal(opened.Reveal(), s.secret.Reveal()) {
		t.Errorf("the handle as it was: %v", err)
	}
}
