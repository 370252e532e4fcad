package channel

import (
	"context"
	"crypto/ecdh"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudflare/circl/hpke"

	"openscope/wire"
)

// ErrHandshake is wrapped by every failure before keys exist. The peer learns
// nothing of it: one code, one path, no text (§11).
var ErrHandshake = errors.New("the handshake did not succeed")

// How long a client has on the daemon's side (§3).
const (
	msg1Within     = 5 * time.Second
	finishedWithin = 10 * time.Second
)

// DaemonConfig is what the daemon's side of a session shakes hands with. It is
// not changed; one config serves many handshakes at once.
type DaemonConfig struct {
	Mode       Mode
	RID        wire.RendezvousID
	HandleHash [32]byte
	// Recipient is the registered X25519 key; nil for bearer.
	Recipient *ecdh.PublicKey
	Keys      *Keys
	Authority Authority
	Guard     *Guard
	Rand      io.Reader
	// Shown, where set, is told that msg1 showed its sender to have S.
	Shown func()
}

func (c *DaemonConfig) transcript() Transcript {
	var recipient []byte
	if c.Recipient != nil {
		recipient = c.Recipient.Bytes()
	}
	return NewTranscript(c.Mode, c.HandleHash, recipient, c.RID)
}

// Daemon shakes hands as the daemon and returns once READY is sent. On error it
// has reset the leg.
func Daemon(ctx context.Context, leg wire.Leg, cfg DaemonConfig) (*Conn, error) {
	stop := context.AfterFunc(ctx, leg.Reset)
	defer stop()
	conn, err := daemonHandshake(ctx, leg, &cfg)
	if err != nil {
		leg.Reset()
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return conn, nil
}

func daemonHandshake(ctx context.Context, leg wire.Leg, cfg *DaemonConfig) (*Conn, error) {
	began := time.Now()
	if err := leg.SetReadDeadline(began.Add(msg1Within)); err != nil {
		return nil, err
	}
	msg1 := make([]byte, Msg1Size)
	if _, err := io.ReadFull(leg, msg1); err != nil {
		return nil, fmt.Errorf("reading msg1: %w", err)
	}
	th0 := cfg.transcript()
	if err := checkMsg1(cfg.Keys, th0, msg1); err != nil {
		return nil, err
	}
	if cfg.Shown != nil {
		cfg.Shown()
	}
	conn, err := cfg.answer(ctx, leg, th0, msg1)
	if err != nil {
		return nil, err
	}
	if err := leg.SetReadDeadline(began.Add(finishedWithin)); err != nil {
		return nil, err
	}
	if err := cfg.accept(ctx, conn); err != nil {
		return nil, err
	}
	return conn, leg.SetReadDeadline(time.Time{})
}

// answer sends msg2: to the registered recipient's key, and to the fresh one.
func (c *DaemonConfig) answer(ctx context.Context, leg wire.Leg, th0 Transcript, msg1 []byte) (*Conn, error) {
	ek, err := ekOf(msg1)
	if err != nil {
		return nil, err
	}
	if err := c.Guard.admit(ek); err != nil {
		return nil, err
	}
	th1 := th0.WithMsg1(msg1)
	encR, ssR, err := c.proveRecipient(th1)
	if err != nil {
		return nil, err
	}
	th1b := th1.WithProof(encR)
	enc, sealer, err := c.encapsulate(ek, c.Keys.psk(ssR, th1.th), th1b)
	if err != nil {
		return nil, err
	}
	clear(ssR)
	said, err := c.Authority.Answer(ctx, c.RID, msg1, encR, enc)
	if err != nil {
		return nil, err
	}
	ct2, err := sealer.Seal(wire.LP(said.P2, said.Signature), th1b.th[:])
	if err != nil {
		return nil, fmt.Errorf("sealing msg2: %w", err)
	}
	says, err := parseDaemonSays(wire.LP(said.P2, said.Signature))
	if err != nil {
		return nil, err
	}
	th2 := th1b.WithMsg2(enc, ct2)
	keys := newSecrets(sealer, th2)
	conn := newConn(leg, daemonRole, th2, keys)
	conn.id, conn.daemonKey, conn.nonce, conn.ct2 = said.ConnID, says.key, says.nonce, ct2
	_, err = leg.Write(msg2{encR: encR, enc: enc, ct2: ct2}.append(nil))
	return conn, err
}

// proveRecipient encapsulates to the recipient's long-term key: only its holder
// can go on. For bearer there is none, and the secret is 32 zero bytes.
func (c *DaemonConfig) proveRecipient(th1 Transcript) (encR, ssR []byte, err error) {
	if c.Mode == Bearer {
		return nil, make([]byte, 32), nil
	}
	key, err := recipientKEM.Scheme().UnmarshalBinaryPublicKey(c.Recipient.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("proving the recipient: %w", err)
	}
	sender, err := recipientSuite.NewSender(key, proofInfo(th1))
	if err != nil {
		return nil, nil, fmt.Errorf("proving the recipient: %w", err)
	}
	encR, sealer, err := sender.Setup(c.Rand)
	if err != nil {
		return nil, nil, fmt.Errorf("proving the recipient: %w", err)
	}
	return encR, sealer.Export([]byte(ssRLabel), 32), nil
}

const ssRLabel = "openscope/1 ssR"

func proofInfo(th1 Transcript) []byte {
	return wire.LP([]byte("openscope/1 recipient proof"), th1.th[:])
}

func channelInfo(th1b Transcript) []byte {
	return wire.LP([]byte("openscope/1 channel"), th1b.th[:])
}

func (c *DaemonConfig) encapsulate(ek, psk []byte, th1b Transcript) ([]byte, hpke.Sealer, error) {
	key, err := channelKEM.Scheme().UnmarshalBinaryPublicKey(ek)
	if err != nil {
		return nil, nil, fmt.Errorf("the client's key: %w", err)
	}
	if len(psk) != pskSize { // circl would take one byte
		return nil, nil, errors.New("the PSK has the wrong size")
	}
	sender, err := channelSuite.NewSender(key, channelInfo(th1b))
	if err != nil {
		return nil, nil, fmt.Errorf("encapsulating: %w", err)
	}
	enc, sealer, err := sender.SetupPSK(c.Rand, psk, c.RID[:])
	clear(psk)
	if err != nil {
		return nil, nil, fmt.Errorf("encapsulating: %w", err)
	}
	return enc, sealer, nil
}

// accept reads FINISHED, has it judged, and sends READY.
func (c *DaemonConfig) accept(ctx context.Context, conn *Conn) error {
	t, body, err := conn.Read()
	if err != nil {
		return fmt.Errorf("reading FINISHED: %w", err)
	}
	if t != TypeFinished || len(body) < hmacSize {
		return errFinished
	}
	said, mac := body[:len(body)-hmacSize], body[len(body)-hmacSize:]
	if subtle.ConstantTimeCompare(finishedMAC(conn.keys, conn.transcript, said), mac) != 1 {
		return errors.New("FINISHED's mac is wrong")
	}
	finished, err := ParseFinished(said)
	if err != nil {
		return err
	}
	accepted, err := c.Authority.Accept(ctx, conn.id, conn.ct2, said)
	if err != nil {
		return err
	}
	ready := newReady(readyMAC(conn.keys, conn.transcript, body), accepted)
	conn.establish(finished.Nonce, accepted)
	return conn.Write(TypeReady, ready)
}
