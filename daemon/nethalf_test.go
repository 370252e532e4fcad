package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/seam"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// The seam's messages, from its own description and not from its code.
const (
	sayReady, sayHello, sayRegister, sayAnswer, sayAccept, sayAttach, sayCall = 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46
	sayCancel, sayChallenge, sayAcknowledge, sayDetach, sayRelays, sayLog     = 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c
	saidOutput                                                                = 5
)

func lp(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }

func message(kind byte, id uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(5+len(body)))
	return append(binary.BigEndian.AppendUint32(append(b, kind), id), body...)
}

// takenOver stands in the place of the net half's process: it has the whole pipe
// to itself. It knows of a recipient who shakes hands and calls through it, and
// can change, repeat and make up what passes, but not sign for them.
type takenOver struct {
	h      *hostileHalf
	random *rand.Rand
	conn   net.Conn
	rid    served
	signed map[string]bool // names that the recipient's key has signed for

	mu      sync.Mutex
	waiting map[uint32]chan []byte
	next    uint32
	mood    func() int // owned by the reader
	gone    chan struct{}
	history [][]byte // what was said, to say it again
}

func (f *takenOver) write(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_, _ = f.conn.Write(b)
}

// say writes a message and remembers it.
func (f *takenOver) say(kind byte, id uint32, body []byte) {
	b := message(kind, id, body)
	if f.history = append(f.history, b); len(f.history) > 200 {
		f.history = f.history[100:]
	}
	f.write(b)
}

// ask says a request and waits for its answer; nil is none.
func (f *takenOver) ask(kind byte, body []byte) []byte {
	f.mu.Lock()
	f.next++
	id, answer := f.next, make(chan []byte, 1)
	f.waiting[id] = answer
	f.mu.Unlock()
	f.say(kind, id, body)
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	select {
	case b := <-answer:
		return b
	case <-f.gone:
	case <-late.C:
	}
	return nil
}

// listen answers what the core asks, mostly as it should, until the core lets go.
func (f *takenOver) listen() {
	defer close(f.gone)
	for {
		var head [9]byte
		if _, err := io.ReadFull(f.conn, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:])-5)
		if _, err := io.ReadFull(f.conn, body); err != nil {
			return
		}
		kind, id := head[4], binary.BigEndian.Uint32(head[5:])
		if kind&0x80 != 0 {
			f.mu.Lock()
			answer := f.waiting[id]
			delete(f.waiting, id)
			f.mu.Unlock()
			if answer != nil {
				answer <- body
			}
			continue
		}
		if id == 0 {
			continue
		}
		answer := []byte{0}
		if kind == saidOutput {
			answer = binary.BigEndian.AppendUint32(answer, uint32(len(body)-33))
		}
		switch f.mood() {
		case 0:
			continue // says nothing
		case 1:
			answer[0] = 1
		case 2:
			answer = append(answer, 7)
		case 3:
			f.write(message(kind|0x80, id, answer)) // twice
		}
		f.write(message(kind|0x80, id, answer))
	}
}

// meet shakes hands for the recipient, as an honest net half would.
func (f *takenOver) meet() *meeting {
	m := &meeting{half: f.h, session: f.rid, key: f.h.key, ct2: make([]byte, 180), enc: make([]byte, 1120)}
	msg1, encR := make([]byte, channel.Msg1Size), make([]byte, 32)
	for _, b := range [][]byte{m.nonce[:], m.ct2, m.enc, msg1} {
		_, _ = crand.Read(b)
	}
	commit := wire.Hash("commit", m.nonce[:])
	copy(msg1[len(msg1)-64:], commit[:])
	answer := f.ask(sayAnswer, slices.Concat(f.rid.RID[:], lp(msg1), lp(encR), lp(m.enc)))
	if len(answer) < 17 || answer[0] != 0 {
		return nil
	}
	m.id = connID(answer[1:17])
	m.th1b = channel.NewTranscript(f.rid.Mode, f.rid.HandleHash, f.rid.Recipient, f.rid.RID).WithMsg1(msg1).WithProof(encR)
	accepted := f.ask(sayAccept, slices.Concat(m.id[:], lp(m.ct2), lp(m.finished(f.h.key))))
	if len(accepted) != 17 || accepted[0] != 0 {
		return nil
	}
	m.challenge = call.Challenge(accepted[1:9])
	if attached := f.ask(sayAttach, slices.Concat(m.id[:], lp(make([]byte, 32)), lp([]byte("192.0.2.1:1")))); len(attached) != 1 || attached[0] != 0 {
		return nil
	}
	return m
}

// step says one thing: of the recipient's, or of its own making.
func (f *takenOver) step(m *meeting) {
	f.h.clock.step(55 * time.Millisecond) // within the rate
	switch f.random.IntN(12) {
	case 0, 1, 2: // a call that the recipient signs
		if c := f.ask(sayChallenge, m.id[:]); len(c) == 9 {
			m.challenge = call.Challenge(c[1:])
		}
		name := fmt.Sprintf("n%d", len(f.signed))
		f.signed[name] = true
		_, body, signature := m.request("test.mark", named(name))
		f.say(sayCall, f.id(), slices.Concat(m.id[:], signature, body))
	case 3: // one that they do not sign
		_, body, signature := m.request("test.mark", named("forged"))
		body = bytes.Replace(body, []byte("forged"), []byte("FORGED"), f.random.IntN(2))
		if !bytes.Contains(body, []byte("FORGED")) {
			signature[f.random.IntN(len(signature))] ^= 1 << f.random.IntN(8)
		}
		f.say(sayCall, f.id(), slices.Concat(m.id[:], signature, body))
	case 4, 5, 6: // something again
		f.write(f.history[f.random.IntN(len(f.history))])
	case 7, 8, 9: // something, changed
		b := bytes.Clone(f.history[f.random.IntN(len(f.history))])
		for range 1 + f.random.IntN(3) {
			if at := f.random.IntN(len(b)); at >= 4 || f.random.IntN(20) == 0 {
				b[at] ^= 1 << f.random.IntN(8)
			}
		}
		f.write(b)
	case 10: // something of a kind that there is, or not, with anything in it
		body := make([]byte, f.random.IntN(100)*f.random.IntN(20))
		_, _ = crand.Read(body)
		copy(body, m.id[:])
		f.say(byte(0x3e+f.random.IntN(16)), uint32(f.random.IntN(3))*f.id(), body)
	case 11: // noise, rarely: it is the end
		if f.random.IntN(20) == 0 {
			noise := make([]byte, f.random.IntN(64))
			_, _ = crand.Read(noise)
			f.write(noise)
		}
	}
}

func (f *takenOver) id() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return f.next
}

// life is one process that was taken over, until the core ends it, or so many steps.
func (f *takenOver) life(steps int) (said int) {
	ours, theirs, err := executor.SocketPair()
	if err != nil {
		f.h.t.Fatal(err)
	}
	f.conn, f.gone, f.waiting, f.history, f.next = theirs, make(chan struct{}), make(map[uint32]chan []byte), nil, 0
	moods := rand.New(rand.NewPCG(f.random.Uint64(), 3))
	f.mood = func() int { return moods.IntN(60) }
	once := make(chan struct{}, 1)
	once <- struct{}{}
	net := seam.NewSupervisor(seam.Config{Core: f.h.core, Logger: f.h.logger, Start: func(ctx context.Context) (seam.Running, error) {
		select {
		case <-once:
			return seam.Running{Conn: ours, Stop: func() error { return ours.Close() }}, nil
		case <-ctx.Done():
			return seam.Running{}, errors.New("one is enough")
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { net.Run(ctx) })
	running.Go(f.listen)
	defer func() {
		cancel()
		_ = theirs.Close()
		running.Wait()
	}()
	f.say(sayReady, 0, []byte{7, 1, 1})
	m := f.meet()
	for ; m != nil && said < steps; said++ {
		select {
		case <-f.gone:
			return said
		default:
			f.step(m)
		}
	}
	return said
}

// A fuzzer in the place of the net half's process: the core does not crash, and
// executes no call that the recipient's key did not sign for that session.
func TestAnythingInThePlaceOfTheNetHalfMakesNoCall(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	f := &takenOver{h: h, random: rand.New(rand.NewPCG(1, 1)), signed: make(map[string]bool)}
	sessions := make(map[wire.RendezvousID]bool)
	lives, said, open := 0, 0, ""
	for until := time.Now().Add(fuzzSeconds * time.Second); time.Now().Before(until); lives++ {
		if lives%40 == 0 {
			if open != "" {
				if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: open}); err != nil {
					t.Fatal(err)
				}
			}
			open, f.rid = h.open("test.mark")
			sessions[f.rid.RID] = true
		}
		said += f.life(400)
	}
	h.calls.Wait()
	ran := h.marksBySigner(f.signed)
	if ran == 0 {
		t.Error("no call ran that the recipient signed: this shows nothing")
	}
	key, calls := h.key.Public().(ed25519.PublicKey), 0
	for _, r := range h.entries() {
		if r.Kind != "call" {
			continue
		}
		calls++
		text, err := hex.DecodeString(r.RID)
		if err != nil || len(text) != 16 || len(r.TH2) != 32 {
			t.Fatalf("entry %d names no session: %q, %v", r.Seq, r.RID, err)
		}
		rid := wire.RendezvousID(text)
		if !sessions[rid] || !call.VerifyRequest(key, rid, [32]byte(r.TH2), r.Request, r.Signature) {
			t.Errorf("entry %d: a call was let run that the recipient did not sign for that session", r.Seq)
		}
	}
	t.Logf("%d lives said %d things; of %d calls that were signed %d ran, and %d were logged", lives, said, len(f.signed), ran, calls)
}

// marksBySigner counts the runs, and demands of each that its name was signed for,
// and of each name that it ran once.
func (h *hostileHalf) marksBySigner(signed map[string]bool) (ran int) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, "mark.*"))
	if err != nil {
		h.t.Fatal(err)
	}
	times := make(map[string]int)
	for _, path := range found {
		name := strings.Split(filepath.Base(path), ".")[1]
		if times[name]++; !signed[name] || times[name] > 1 {
			h.t.Errorf("%s: run %d, signed for: %v", name, times[name], signed[name])
		}
	}
	return len(found)
}
