package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// ends is what the two ends of the channel know in the benchmark: one daemon,
// one recipient, and sessions of which only the number differs.
type ends struct {
	daemon, signer ed25519.PrivateKey
	recipient      *ecdh.PrivateKey
	handle         [32]byte

	mu      sync.Mutex
	pending map[[16]byte]shaking
}

// shaking is a handshake between msg2 and FINISHED.
type shaking struct {
	rid        wire.RendezvousID
	transcript channel.Transcript
	enc        []byte
	commitment [32]byte
}

func newEnds() (*ends, error) {
	daemon, signer, agreement := seed("daemon", 0), seed("signer", 0), seed("recipient", 0)
	recipient, err := ecdh.X25519().NewPrivateKey(agreement[:])
	return &ends{
		daemon: ed25519.NewKeyFromSeed(daemon[:]), signer: ed25519.NewKeyFromSeed(signer[:]), recipient: recipient,
		handle: seed("handle", 0), pending: make(map[[16]byte]shaking),
	}, err
}

func (e *ends) public() ed25519.PublicKey { return e.daemon.Public().(ed25519.PublicKey) }

// Answer and Accept do what the daemon's core does (channel.Authority).
func (e *ends) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	th0 := channel.NewTranscript(channel.Sealed, e.handle, e.recipient.PublicKey().Bytes(), rid)
	commitment, err := channel.Commitment(msg1)
	if err != nil {
		return channel.Answer{}, err
	}
	s := shaking{rid: rid, transcript: th0.WithMsg1(msg1).WithProof(encR), enc: bytes.Clone(enc), commitment: commitment}
	var id [16]byte
	var nonce [32]byte
	if _, err := rand.Read(id[:]); err != nil {
		return channel.Answer{}, err
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return channel.Answer{}, err
	}
	p2 := channel.P2(e.public(), id, nonce)
	e.mu.Lock()
	e.pending[id] = s
	e.mu.Unlock()
	return channel.Answer{ConnID: id, P2: p2, Signature: ed25519.Sign(e.daemon, s.transcript.DaemonSignedBytes(enc, p2))}, nil
}

func (e *ends) Accept(_ context.Context, id [16]byte, ct2, body []byte) (channel.Acceptance, error) {
	e.mu.Lock()
	s, ok := e.pending[id]
	delete(e.pending, id)
	e.mu.Unlock()
	if !ok {
		return channel.Acceptance{}, errors.New("no such handshake")
	}
	f, err := channel.ParseFinished(body)
	if err != nil {
		return channel.Acceptance{}, err
	}
	return channel.Acceptance{Remaining: 30 * time.Minute}, f.Verify(s.transcript.WithMsg2(s.enc, ct2), s.rid, s.commitment)
}

// theCall is the one call of a connection here.
var theCall = call.ID{1}

// idlePing is a daemon's rhythm on an idle connection.
const idlePing = 25 * time.Second

// serve is the daemon's end of one connection: PING is answered, and the first
// CALL is given as much output as flow control lets through.
func (e *ends) serve(ctx context.Context, rid wire.RendezvousID, leg wire.Leg) {
	conn, err := channel.Daemon(ctx, leg, channel.DaemonConfig{
		Mode: channel.Sealed, RID: rid, HandleHash: e.handle, Recipient: e.recipient.PublicKey(),
		Keys: e.keysOf(rid), Authority: e, Guard: channel.NewGuard(time.Now), Rand: rand.Reader,
	})
	if err != nil {
		return
	}
	defer conn.Reset()
	flow := call.NewFlow(time.Now)
	ended, stop := context.WithCancel(ctx)
	defer stop()
	go pingIdly(ended, conn)
	for {
		t, body, err := conn.Read()
		if err != nil {
			flow.Fail(err)
			return
		}
		switch t {
		case channel.TypePing:
			p, err := call.ParsePing(body)
			if err != nil || conn.Write(channel.TypePong, call.Pong{Nonce: p.Nonce}.Append(nil)) != nil {
				return
			}
		case channel.TypeWindow:
			w, err := call.ParseWindow(body)
			if err != nil || flow.Acknowledge(w) != nil {
				return
			}
		case channel.TypeCall:
			flow.Open(theCall)
			go pour(ended, conn, flow)
		}
	}
}

// keysOf finds the session of a rendezvous id.
func (e *ends) keysOf(rid wire.RendezvousID) *channel.Keys {
	allRIDs.once.Do(func() {
		allRIDs.of = make(map[wire.RendezvousID]int)
		for i := range sessionCount {
			allRIDs.of[ridOf(i)] = i
		}
	})
	return sessionKeys(allRIDs.of[rid])
}

var allRIDs struct {
	once sync.Once
	of   map[wire.RendezvousID]int
}

// pour sends output as the daemon does: its own buffer, records as large as
// they get, and never more than the flow allows.
func pour(ctx context.Context, conn *channel.Conn, flow *call.Flow) {
	const most = channel.MaxBody - call.OutputHeader
	data := make([]byte, most)
	var record []byte
	digest := sha256.New()
	for {
		n, offset, err := flow.Take(ctx, theCall, call.Stdout, most)
		if err != nil {
			return
		}
		digest.Write(data[:n]) // END carries it
		record = call.Output{ID: theCall, Stream: call.Stdout, Offset: offset, Data: data[:n]}.Append(record[:0])
		if conn.Write(channel.TypeOut, record) != nil {
			return
		}
	}
}

func pingIdly(ctx context.Context, conn *channel.Conn) {
	tick := time.NewTicker(idlePing)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if conn.Write(channel.TypePing, call.Ping{}.Append(nil)) != nil {
				return
			}
		}
	}
}

// recordStream is the client's end: its reads take output, its echoes are PINGs.
type recordStream struct {
	conn *channel.Conn

	mu   sync.Mutex // guards what is below
	came uint64
	wake chan struct{} // something came; capacity 1
	pong chan struct{} // a PONG came; capacity 1
	done chan struct{}
}

func (e *ends) client(ctx context.Context, session int, leg wire.Leg) (*recordStream, error) {
	conn, err := channel.Client(ctx, leg, channel.ClientConfig{
		Mode: channel.Sealed, RID: ridOf(session), HandleHash: e.handle, Fingerprint: channel.Fingerprint(e.public()),
		Recipient: func() *ecdh.PrivateKey { return e.recipient }, Keys: sessionKeys(session), Signer: wire.SigningKeyOf(e.signer), Rand: rand.Reader,
	})
	if err != nil {
		return nil, err
	}
	s := &recordStream{conn: conn, wake: make(chan struct{}, 1), pong: make(chan struct{}, 1), done: make(chan struct{})}
	go s.read()
	go s.acknowledge()
	return s, nil
}

func (s *recordStream) read() {
	defer close(s.done)
	digest := sha256.New() // to be compared with END's
	for {
		t, body, err := s.conn.Read()
		if err != nil {
			return
		}
		switch t {
		case channel.TypeOut:
			o, err := call.ParseOutput(body)
			if err != nil {
				return
			}
			digest.Write(o.Data)
			s.mu.Lock()
			s.came += uint64(len(o.Data))
			s.mu.Unlock()
			nudge(s.wake)
		case channel.TypePong:
			nudge(s.pong)
		case channel.TypePing:
			p, err := call.ParsePing(body)
			if err != nil || s.conn.Write(channel.TypePong, call.Pong{Nonce: p.Nonce}.Append(nil)) != nil {
				return
			}
		}
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// acknowledge sends WINDOW as the client does: whenever something came that has
// not been told, as often as it can be written.
func (s *recordStream) acknowledge() {
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		w := call.Window{ID: theCall, Stdout: s.received(), Credit: call.MaxCredit}
		if s.conn.Write(channel.TypeWindow, w.Append(nil)) != nil {
			return
		}
	}
}

func (s *recordStream) received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.came
}

// bulk asks for output without an end.
func (s *recordStream) bulk() error { return s.conn.Write(channel.TypeCall, theCall[:]) }

// trip is one small record there and one back.
func (s *recordStream) trip() error {
	if err := s.conn.Write(channel.TypePing, call.Ping{}.Append(nil)); err != nil {
		return err
	}
	select {
	case <-s.pong:
		return nil
	case <-s.done:
		return io.ErrUnexpectedEOF
	}
}

func (s *recordStream) reset() { s.conn.Reset() }
