package bench

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"openscope/wire"
	"openscope/wire/channel"
)

// memoryPipe is one direction in memory, without a bound and without a copy
// more than there must be.
type memoryPipe struct {
	mu     sync.Mutex
	filled *sync.Cond
	data   bytes.Buffer
	closed bool
}

func newMemoryPipe() *memoryPipe {
	p := new(memoryPipe)
	p.filled = sync.NewCond(&p.mu)
	return p
}

func (p *memoryPipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.data.Len() == 0 {
		if p.closed {
			return 0, io.EOF
		}
		p.filled.Wait()
	}
	return p.data.Read(b)
}

func (p *memoryPipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.filled.Signal()
	return p.data.Write(b)
}

func (p *memoryPipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.filled.Broadcast()
}

// memoryEnd is one end of two pipes.
type memoryEnd struct{ in, out *memoryPipe }

func (l memoryEnd) Read(p []byte) (int, error)       { return l.in.Read(p) }
func (l memoryEnd) Write(p []byte) (int, error)      { return l.out.Write(p) }
func (l memoryEnd) CloseWrite() error                { l.out.close(); return nil }
func (l memoryEnd) Reset()                           { l.in.close(); l.out.close() }
func (l memoryEnd) SetReadDeadline(time.Time) error  { return nil }
func (l memoryEnd) SetWriteDeadline(time.Time) error { return nil }

// ends is a session with both its ends, as far as the channel goes.
type ends struct {
	key       ed25519.PrivateKey
	signer    ed25519.PrivateKey
	recipient *ecdh.PrivateKey
	secret    wire.Secret
	rid       wire.RendezvousID
	th0       channel.Transcript
	msg1, enc []byte
	encR      []byte
}

func newEnds(t testing.TB) *ends {
	t.Helper()
	e := &ends{rid: wire.RendezvousID{1}}
	var errs [4]error
	_, e.key, errs[0] = ed25519.GenerateKey(rand.Reader)
	_, e.signer, errs[1] = ed25519.GenerateKey(rand.Reader)
	e.recipient, errs[2] = ecdh.X25519().GenerateKey(rand.Reader)
	e.secret, errs[3] = wire.NewSecret(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	e.th0 = channel.NewTranscript(channel.Sealed, [32]byte{2}, e.recipient.PublicKey().Bytes(), e.rid)
	return e
}

func (e *ends) opens() *ecdh.PrivateKey { return e.recipient }

func (e *ends) public() ed25519.PublicKey { return e.key.Public().(ed25519.PublicKey) }

// Answer and Accept do what the daemon's core does.
func (e *ends) Answer(_ context.Context, _ wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	e.msg1, e.encR, e.enc = bytes.Clone(msg1), bytes.Clone(encR), bytes.Clone(enc)
	p2 := channel.P2(e.public(), [16]byte{3}, [32]byte{4})
	signed := e.th0.WithMsg1(msg1).WithProof(encR).DaemonSignedBytes(enc, p2)
	return channel.Answer{ConnID: [16]byte{3}, P2: p2, Signature: ed25519.Sign(e.key, signed)}, nil
}

func (e *ends) Accept(_ context.Context, _ [16]byte, ct2, body []byte) (channel.Acceptance, error) {
	f, err := channel.ParseFinished(body)
	if err != nil {
		return channel.Acceptance{}, err
	}
	commitment, err := channel.Commitment(e.msg1)
	if err != nil {
		return channel.Acceptance{}, err
	}
	th2 := e.th0.WithMsg1(e.msg1).WithProof(e.encR).WithMsg2(e.enc, ct2)
	return channel.Acceptance{Remaining: time.Minute}, f.Verify(th2, e.rid, commitment)
}

// shaken is what one end's handshake came to.
type shaken struct {
	conn *channel.Conn
	err  error
}

// serve is the daemon's end of a handshake, in the background.
func (e *ends) serve(t testing.TB, leg wire.Leg) <-chan shaken {
	done := make(chan shaken, 1)
	go func() {
		conn, err := channel.Daemon(t.Context(), leg, channel.DaemonConfig{
			Mode: channel.Sealed, RID: e.rid, HandleHash: [32]byte{2}, Recipient: e.recipient.PublicKey(), Keys: channel.NewKeys(e.secret),
			Authority: e, Guard: channel.NewGuard(time.Now), Rand: rand.Reader,
		})
		done <- shaken{conn, err}
	}()
	return done
}

// shake is one handshake, both ends.
func (e *ends) shake(t testing.TB) (client, daemon *channel.Conn) {
	t.Helper()
	up, down := newMemoryPipe(), newMemoryPipe()
	done := e.serve(t, memoryEnd{up, down})
	client, err := channel.Client(t.Context(), memoryEnd{down, up}, channel.ClientConfig{
		Mode: channel.Sealed, RID: e.rid, HandleHash: [32]byte{2}, Fingerprint: channel.Fingerprint(e.public()),
		Recipient: e.opens, Keys: channel.NewKeys(e.secret), Signer: wire.SigningKeyOf(e.signer), Rand: rand.Reader,
	})
	r := <-done
	if err := errors.Join(err, r.err); err != nil {
		t.Fatal(err)
	}
	return client, r.conn
}

// cpu is the processor time this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandshake is both ends of a sealed handshake, the core's part and
// all signatures included: cpu-ms/op is to stay under 2.
func BenchmarkHandshake(b *testing.B) {
	e := newEnds(b)
	before := cpu(b)
	for b.Loop() {
		e.shake(b)
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkRecord is sealing, passing on and opening a record of 16 KiB, beside
// the bare AEAD on as many bytes in the same loop: of-aead is to stay over 0.7,
// with no allocation.
func BenchmarkRecord(b *testing.B) {
	client, daemon := newEnds(b).shake(b)
	aead, err := chacha20poly1305.New(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	body, nonce := make([]byte, channel.MaxBody), make([]byte, aead.NonceSize())
	buf := make([]byte, 16<<10, 16<<10+aead.Overhead())
	var record, bare time.Duration
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		began := time.Now()
		if err := daemon.Write(channel.TypeOut, body); err != nil {
			b.Fatal(err)
		}
		if _, _, err := client.Read(); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		sealed := aead.Seal(buf[:0], nonce, buf, nonce[:2])
		if _, err := aead.Open(sealed[:0], nonce, sealed, nonce[:2]); err != nil {
			b.Fatal(err)
		}
		record += between.Sub(began)
		bare += time.Since(between)
	}
	b.ReportMetric(bare.Seconds()/record.Seconds(), "of-aead")
}
