package seam

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// strict is a core that demands of what it is told only what the seam promises.
type strict struct {
	t *testing.T

	mu    sync.Mutex
	peers map[ConnID]Peer
}

func (s *strict) sized(what string, b []byte, most int) {
	if len(b) > most {
		s.t.Errorf("%s of %d bytes", what, len(b))
	}
}

func (s *strict) Answer(_ context.Context, _ wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	for _, b := range [][]byte{msg1, encR, enc} {
		s.sized("a part of a handshake", b, maxHandshake)
	}
	return channel.Answer{P2: make([]byte, 92), Signature: make([]byte, 64)}, nil
}

func (s *strict) Accept(_ context.Context, _ ConnID, ct2, finished []byte) (channel.Acceptance, error) {
	s.sized("ct2", ct2, maxHandshake)
	s.sized("FINISHED", finished, maxHandshake)
	return channel.Acceptance{}, nil
}

func (s *strict) ProveHello([32]byte) (wire.TokenID, []byte, error) {
	return wire.TokenID{}, make([]byte, 64), nil
}

func (s *strict) ProveRegister(_ [32]byte, rid wire.RendezvousID) (wire.Register, error) {
	return wire.Register{RID: rid, RegisterKey: make([]byte, 32), JoinKey: make([]byte, 32), Signature: make([]byte, 64)}, nil
}

func (s *strict) Attach(id ConnID, p Peer, facts Attachment) error {
	s.sized("the words", facts.SAS, maxWords)
	if len(facts.From) > maxFrom || bytes.ContainsFunc([]byte(facts.From), func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		s.t.Errorf("it is said to come from %q", facts.From)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[id] != nil {
		s.t.Error("a connection is attached twice")
	}
	s.peers[id] = p
	return nil
}

func (s *strict) known(id ConnID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[id] == nil {
		s.t.Error("a connection is spoken of that is not attached")
	}
}

func (s *strict) TakeCall(_ ConnID, body, sig []byte) error {
	s.sized("a call", body, channel.MaxBody)
	if len(sig) != signature {
		s.t.Errorf("a signature of %d bytes", len(sig))
	}
	return ErrProtocol
}

func (s *strict) Cancel(id ConnID, _ call.ID)              { s.known(id) }
func (s *strict) Acknowledge(id ConnID, _ call.Window)     { s.known(id) }
func (s *strict) Challenge(ConnID) (call.Challenge, error) { return call.Challenge{}, nil }

func (s *strict) Detach(id ConnID, _ bool) {
	s.known(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, id)
}

// said is a message as the net half writes it.
func said(k kind, id uint32, body ...[]byte) []byte {
	e := frame(k, id, 64).fixed(bytes.Join(body, nil))
	binary.BigEndian.PutUint32(e, uint32(len(e)-4))
	return e
}

var fuzzRelays = []wire.Relay{{Address: "a:1"}, {Address: "b:2"}}

// seeds are a sound conversation, and one message of each kind after it.
func seeds() [][]byte {
	conn, long := make([]byte, 16), func(n int) []byte { return encoder(nil).long(make([]byte, n)) }
	window := call.Window{Credit: 1}.Append(nil)
	states := appendStates(nil, []RelayState{{Connected: true, Rung: "quic"}, {Problem: "it is not there"}})
	attach := said(kindAttach, 1, conn, long(32), long(9))
	all := [][]byte{
		said(kindProveHello, 2, make([]byte, 32)), said(kindProveRegister, 2, make([]byte, 48)),
		said(kindAnswer, 2, conn, long(1280), long(32), long(1120)), said(kindAccept, 2, conn, long(180), long(200)),
		attach, slicesOf(attach, said(kindCancel, 0, conn, conn), said(kindAcknowledge, 0, conn, window), said(kindDetach, 3, conn, []byte{1})),
		slicesOf(attach, attach), said(kindCall, 2, conn, make([]byte, 64), make([]byte, 100)), said(kindChallenge, 2, conn),
		said(kindRelays, 0, states), said(kindLog, 0, encoder(nil).byte(4).text("hello", 9).byte(1).text("k", 9).text("v", 9)),
		said(kindRegister|answerBit, 1, []byte{0, 0, 0, 0, 0}), said(kindReady, 0, []byte{1, 1, 1}), said(kindSetup, 0), said(0x7f, 9),
	}
	return all
}

func slicesOf(all ...[]byte) []byte { return bytes.Join(all, nil) }

// FuzzWhatTheNetHalfSays feeds the core's end of a pipe: whatever comes, it hands
// on what is bounded, attaches nothing twice, and leaves nothing attached.
func FuzzWhatTheNetHalfSays(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		core := &strict{t: t, peers: make(map[ConnID]Peer)}
		ours, theirs := net.Pipe()
		l := newLink(ours, core, fuzzRelays, slog.New(slog.DiscardHandler), func(*Confinement, []RelayState) {})
		var other sync.WaitGroup
		other.Go(func() {
			buf := make([]byte, 4096)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		})
		other.Go(func() {
			defer theirs.Close()
			_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := theirs.Write(said(kindReady, 0, []byte{7, 1, 1})); err == nil {
				_, _ = theirs.Write(data)
			}
		})
		if err := l.run(); err == nil {
			t.Error("the pipe ends for no reason")
		}
		other.Wait()
		if len(core.peers) > 0 {
			t.Errorf("%d connections are still attached", len(core.peers))
		}
	})
}

// FuzzWhatTheNetHalfAnswers feeds the core answers to what it has asked.
func FuzzWhatTheNetHalfAnswers(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 3}, uint8(0))
	f.Add([]byte{0}, uint8(1))
	f.Add(slicesOf([]byte{1, 1}, encoder(nil).text("b:2", 9)), uint8(2))
	f.Add([]byte(Tried{Kind: TriedImpostor, Problem: "somebody else", Host: "b"}.append(nil)), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		if len(data) > maxAnswer {
			return
		}
		ours, theirs := net.Pipe()
		l := newLink(ours, &strict{t: t, peers: make(map[ConnID]Peer)}, fuzzRelays, slog.New(slog.DiscardHandler), func(*Confinement, []RelayState) {})
		var running sync.WaitGroup
		running.Go(func() { _ = l.run() })
		running.Go(func() {
			defer theirs.Close()
			var head [frameHead]byte
			if _, err := theirs.Read(head[:]); err != nil {
				return
			}
			body := make([]byte, binary.BigEndian.Uint32(head[:])-(frameHead-4))
			if _, err := theirs.Read(body); err != nil && len(body) > 0 {
				return
			}
			_, _ = theirs.Write(said(kind(head[4])|answerBit, binary.BigEndian.Uint32(head[5:]), data))
		})
		ctx, p := context.Background(), newRemotePeer(l, ConnID{1})
		switch which % 4 {
		case 0:
			if n, err := p.Output(ctx, call.ID{2}, call.Stdout, []byte("output")); n > 6 || err == nil && n < 6 {
				t.Errorf("%d bytes of 6 were sent: %v", n, err)
			}
		case 1:
			if err := p.Issue(passport.Signed("a passport")); err == nil && !bytes.Equal(data, []byte{resultDone}) {
				t.Errorf("%x is taken for done", data)
			}
		case 2:
			relays, _, err := l.register(ctx, wire.RendezvousID{3})
			for _, r := range relays {
				if wire.CheckAddress(r.Address) != nil || len(relays) > len(fuzzRelays) {
					t.Errorf("%v, %v", relays, err)
				}
			}
		case 3:
			if tried, err := l.try(ctx, 0, 0); err == nil && (tried.Took < 0 || tried.Kind >= triedKinds) {
				t.Errorf("%+v", tried)
			}
		}
		l.fail(errors.New("enough"))
		running.Wait()
	})
}
