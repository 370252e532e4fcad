package channel

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"openscope/wire"
)

// ClientConfig is what a client shakes hands with. The fingerprint must have
// been confirmed by a person, or be known: it is the only thing that says who
// the daemon is.
type ClientConfig struct {
	Mode                    Mode
	RID                     wire.RendezvousID
	HandleHash, Fingerprint [32]byte
	Keys                    *Keys
	// Recipient returns the registered X25519 key, which nothing prints this way;
	// nil for bearer.
	Recipient func() *ecdh.PrivateKey
	// Signer is the registered Ed25519 key, or the claim's.
	Signer wire.SigningKey
	// BeforeFinished, where set, is called once the daemon is known and before
	// anything is claimed: a bearer client makes its claim durable there.
	BeforeFinished func() error
	// TakeOver, where set, is asked last before FINISHED is written which
	// connection this one replaces, and which calls go on here: from then on
	// nothing may be taken from the other.
	TakeOver func() (replaces [16]byte, calls []Resume)
	Rand     io.Reader
}

// ErrWrongDaemon says that whoever answered is not the daemon of the handle.
var ErrWrongDaemon = errors.New("the daemon is not the one the handle names")

// Client shakes hands as the client and returns once READY is verified. On
// error it has reset the leg.
func Client(ctx context.Context, leg wire.Leg, cfg ClientConfig) (*Conn, error) {
	stop := context.AfterFunc(ctx, leg.Reset)
	defer stop()
	conn, err := clientHandshake(leg, &cfg)
	if err != nil {
		leg.Reset()
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return conn, nil
}

// fresh is the client's part of msg1 that it must remember.
type fresh struct {
	private kem.PrivateKey
	nonce   [32]byte
	msg1    []byte
}

func clientHandshake(leg wire.Leg, cfg *ClientConfig) (*Conn, error) {
	var recipient []byte
	if cfg.Recipient != nil {
		recipient = cfg.Recipient().PublicKey().Bytes()
	}
	th0 := NewTranscript(cfg.Mode, cfg.HandleHash, recipient, cfg.RID)
	f, err := cfg.begin(th0)
	if err != nil {
		return nil, err
	}
	if _, err := leg.Write(f.msg1); err != nil {
		return nil, fmt.Errorf("sending msg1: %w", err)
	}
	raw := make([]byte, Msg2Size(cfg.Mode))
	if _, err := io.ReadFull(leg, raw); err != nil {
		return nil, fmt.Errorf("reading msg2: %w", err)
	}
	m, err := parseMsg2(cfg.Mode, raw)
	if err != nil {
		return nil, err
	}
	conn, err := cfg.verify(leg, th0.WithMsg1(f.msg1), f, m)
	if err != nil {
		return nil, err
	}
	if cfg.BeforeFinished != nil {
		if err := cfg.BeforeFinished(); err != nil {
			return nil, err
		}
	}
	return conn, cfg.finish(conn, f.nonce)
}

// begin draws the fresh key and the nonce, and writes msg1.
func (c *ClientConfig) begin(th0 Transcript) (*fresh, error) {
	scheme := channelKEM.Scheme()
	seed := make([]byte, scheme.SeedSize())
	defer clear(seed)
	f := new(fresh)
	if _, err := io.ReadFull(c.Rand, seed); err != nil {
		return nil, fmt.Errorf("drawing a key: %w", err)
	}
	if _, err := io.ReadFull(c.Rand, f.nonce[:]); err != nil {
		return nil, fmt.Errorf("drawing a nonce: %w", err)
	}
	public, private := scheme.DeriveKeyPair(seed)
	ek, err := public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("writing msg1: %w", err)
	}
	f.private, f.msg1 = private, newMsg1(c.Keys, th0, ek, f.nonce)
	return f, nil
}

// verify opens msg2 and checks that it is from the daemon of the handle, in
// this handshake.
func (c *ClientConfig) verify(leg wire.Leg, th1 Transcript, f *fresh, m msg2) (*Conn, error) {
	ssR, err := c.recipientProof(th1, m.encR)
	if err != nil {
		return nil, err
	}
	th1b := th1.WithProof(m.encR)
	opener, err := c.decapsulate(f.private, c.Keys.psk(ssR, th1.th), th1b, m.enc)
	clear(ssR)
	if err != nil {
		return nil, err
	}
	plain, err := opener.Open(m.ct2, th1b.th[:])
	if err != nil {
		return nil, errors.New("msg2 does not open")
	}
	says, err := parseDaemonSays(plain)
	if err != nil {
		return nil, err
	}
	fp := Fingerprint(says.key)
	if subtle.ConstantTimeCompare(fp[:], c.Fingerprint[:]) != 1 {
		return nil, fmt.Errorf("%w: its fingerprint is another", ErrWrongDaemon)
	}
	if !ed25519.Verify(says.key, th1b.DaemonSignedBytes(m.enc, says.p2), says.signature) {
		return nil, fmt.Errorf("%w: its signature is wrong", ErrWrongDaemon)
	}
	th2 := th1b.WithMsg2(m.enc, m.ct2)
	conn := newConn(leg, clientRole, th2, newSecrets(opener, th2))
	conn.id, conn.daemonKey, conn.nonce = says.connID, says.key, says.nonce
	return conn, nil
}

// recipientProof opens what only the registered key can open.
func (c *ClientConfig) recipientProof(th1 Transcript, encR []byte) ([]byte, error) {
	if c.Mode == Bearer {
		return make([]byte, 32), nil
	}
	private, err := recipientPrivate(c.Recipient())
	if err != nil {
		return nil, err
	}
	receiver, err := recipientSuite.NewReceiver(private, proofInfo(th1))
	if err != nil {
		return nil, fmt.Errorf("opening the recipient proof: %w", err)
	}
	opener, err := receiver.Setup(encR)
	if err != nil {
		return nil, fmt.Errorf("opening the recipient proof: %w", err)
	}
	return opener.Export([]byte(ssRLabel), 32), nil
}

func (c *ClientConfig) decapsulate(key kem.PrivateKey, psk []byte, th1b Transcript, enc []byte) (hpke.Opener, error) {
	defer clear(psk)
	if len(psk) != pskSize {
		return nil, errors.New("the PSK has the wrong size")
	}
	receiver, err := channelSuite.NewReceiver(key, channelInfo(th1b))
	if err != nil {
		return nil, fmt.Errorf("decapsulating: %w", err)
	}
	opener, err := receiver.SetupPSK(enc, psk, c.RID[:])
	if err != nil {
		return nil, fmt.Errorf("decapsulating: %w", err)
	}
	return opener, nil
}

// finish sends FINISHED and verifies READY.
func (c *ClientConfig) finish(conn *Conn, nonce [32]byte) error {
	f := Finished{Nonce: nonce, Key: c.Signer.Public()}
	if c.TakeOver != nil {
		f.Replaces, f.Resume = c.TakeOver()
	}
	body := f.sign(c.Signer.Reveal(), conn.transcript, c.RID)
	body = append(body, finishedMAC(conn.keys, conn.transcript, body)...)
	if err := conn.Write(TypeFinished, body); err != nil {
		return fmt.Errorf("sending FINISHED: %w", err)
	}
	t, ready, err := conn.Read()
	if err != nil {
		return fmt.Errorf("reading READY: %w", err)
	}
	if t != TypeReady {
		return errors.New("READY did not come first")
	}
	mac, accepted, err := parseReady(ready)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(readyMAC(conn.keys, conn.transcript, body), mac) != 1 {
		return errors.New("READY's mac is wrong")
	}
	conn.establish(nonce, accepted)
	return nil
}
