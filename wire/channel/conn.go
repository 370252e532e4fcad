package channel

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"openscope/wire"
)

// role is which end of the channel this is.
type role uint8

const (
	clientRole role = iota
	daemonRole
)

// Conn is an established channel: records one way and the other. Each direction
// owns its lock, and the first error of a direction sticks.
type Conn struct {
	// set during the handshake, immutable after it
	leg        wire.Leg
	id         [16]byte
	transcript Transcript
	daemonKey  ed25519.PublicKey
	nonce      [32]byte // nD
	ct2        []byte
	words      []byte
	challenge  [8]byte
	remaining  time.Duration
	keys       *secrets // nil once established

	rx rx
	tx tx
}

func newConn(leg wire.Leg, r role, t Transcript, keys *secrets) *Conn {
	c := &Conn{leg: leg, transcript: t, keys: keys}
	in, out := keys.toClient, keys.toDaemon
	if r == daemonRole {
		in, out = out, in
	}
	c.rx = newRx(leg, in, r)
	c.tx = newTx(leg, out)
	return c
}

// establish keeps what the session needs and erases what the handshake did.
func (c *Conn) establish(nC [32]byte, a Acceptance) {
	c.words = c.keys.sessionWords(nC, c.nonce, c.transcript)
	c.challenge, c.remaining = a.Challenge, a.Remaining
	c.keys.forget()
	c.keys, c.ct2 = nil, nil
}

// Format prints which connection it is, and nothing of its keys.
func (c *Conn) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "(connection %x)", c.id) }

// Read returns the next record. The body is valid until the next Read; there
// must be one reader.
func (c *Conn) Read() (Type, []byte, error) { return c.rx.read() }

// Write sends one record, its body in as many parts as the caller has. It may
// be called from any goroutine; records never interleave.
func (c *Conn) Write(t Type, body ...[]byte) error { return c.tx.write(t, body) }

// ID names the connection on both ends.
func (c *Conn) ID() [16]byte { return c.id }

// TH2 is the transcript every request on this connection is bound to.
func (c *Conn) TH2() [32]byte { return c.transcript.th }

// SessionWords is the secret of which people compare four words (§10).
func (c *Conn) SessionWords() []byte { return c.words }

// DaemonKey is the daemon's identity key, verified against the fingerprint.
func (c *Conn) DaemonKey() ed25519.PublicKey { return c.daemonKey }

// Challenge is the one from READY.
func (c *Conn) Challenge() [8]byte { return c.challenge }

// Remaining is what READY said is left of the session.
func (c *Conn) Remaining() time.Duration { return c.remaining }

// CloseWrite ends this end's direction after what was written.
func (c *Conn) CloseWrite() error { return c.tx.closeWrite() }

// Reset ends both directions at once.
func (c *Conn) Reset() { c.leg.Reset() }
