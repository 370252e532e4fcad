package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"openscope/client"
	"openscope/daemon"
	"openscope/passport"
	"openscope/relay"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// The rows run one after the other: each looks for goroutines that it left
// behind. The seeds of a row run beside each other in goroutines, and not as
// parallel tests, of which there would be as few as there are processors: most
// of what they do is wait for somebody to give up.

// hostileRelay is a relay that does with its legs what it likes. The real
// daemon stands on it; the client's side of a leg begins in this process.
type hostileRelay struct {
	t       *testing.T
	honest  face
	address string
	pin     wire.Pin
	window  uint64 // of every stream to the relay; 0 is an honest relay's

	mu     sync.Mutex // guards what is below
	daemon *quic.Conn
	stands map[wire.RendezvousID]*quic.Conn
	stop   func()
	legs   uint64
	dialed int // connections that were attempted
	spoken int // those on which a first message came
}

// face is what a relay shows those who dial it.
type face struct {
	certificate tls.Certificate
	alpn        string
	answer      []byte // to hello
}

func newHostileRelay(t *testing.T) *hostileRelay {
	t.Helper()
	certificate, pin, err := relay.SelfSigned(protectedDir(t), rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := &hostileRelay{
		t: t, pin: pin, address: unusedAddress(t), stands: make(map[wire.RendezvousID]*quic.Conn),
		honest: face{certificate, wire.ALPN, wire.HelloAck{Sessions: 1024, Legs: wire.LegsPerSession}.Append(nil)},
	}
	r.show(r.honest)
	t.Cleanup(func() { r.stop() })
	return r
}

// unusedAddress is one that stays free while the relay restarts: sockets that
// ask for any port are given those from 32,768 on.
func unusedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		socket, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", 10_000+mathrand.IntN(22_000)))
		if err == nil {
			defer socket.Close()
			return socket.LocalAddr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// show starts the relay anew behind a face, on the address it had.
func (r *hostileRelay) show(f face) {
	if r.stop != nil {
		r.stop()
	}
	socket, err := net.ListenPacket("udp", r.address)
	// The last write on the socket before may still be under way.
	for began := time.Now(); err != nil && time.Since(began) < 5*time.Second; time.Sleep(5 * time.Millisecond) {
		socket, err = net.ListenPacket("udp", r.address)
	}
	if err != nil {
		r.t.Errorf("restarting the relay: %v", err)
		return
	}
	transport := &quic.Transport{Conn: socket}
	config := tunnel.Config(1, 1+tunnel.MaxDaemonStreams)
	if r.window > 0 {
		config.InitialStreamReceiveWindow, config.MaxStreamReceiveWindow = r.window, r.window
	}
	listener, err := transport.Listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{f.alpn}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{f.certificate},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			r.count(&r.dialed)
			return nil, nil
		},
	}, config)
	if err != nil {
		r.t.Errorf("restarting the relay: %v", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			running.Go(func() { r.serve(ctx, conn, f) })
		}
	})
	r.stop = func() {
		cancel()
		running.Wait()
		_ = listener.Close()
		_ = transport.Close()
		_ = socket.Close()
	}
}

func (r *hostileRelay) count(n *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
}

func (r *hostileRelay) counted(n *int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *n
}

// serve takes every token and every session: proofs are nothing to it.
func (r *hostileRelay) serve(ctx context.Context, conn *quic.Conn, f face) {
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseWithError(tunnel.CodeDone, "") })
	defer stop()
	defer conn.CloseWithError(tunnel.CodeDone, "")
	control, err := conn.AcceptStream(ctx)
	if err != nil {
		return
	}
	if _, _, err := wire.ReadMessage(control); err != nil {
		return
	}
	r.count(&r.spoken)
	if _, err := control.Write(f.answer); err != nil {
		return
	}
	r.mu.Lock()
	r.daemon = conn
	r.mu.Unlock()
	for {
		kind, body, err := wire.ReadMessage(control)
		if err != nil {
			return
		}
		if kind != wire.TypeRegister {
			continue
		}
		m, err := wire.ParseRegister(body)
		if err != nil {
			r.t.Errorf("the daemon registers: %v", err)
			return
		}
		r.mu.Lock()
		r.stands[m.RID] = conn
		r.mu.Unlock()
		if _, err := control.Write(wire.RegisterAck{RID: m.RID}.Append(nil)); err != nil {
			return
		}
	}
}

// standing is the daemon's connection, or that of one session.
func (r *hostileRelay) standing(rid wire.RendezvousID) *quic.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stands[rid]
}

// stream opens a stream to the daemon, with nothing on it.
func (r *hostileRelay) stream() (*quic.Stream, error) {
	r.mu.Lock()
	conn := r.daemon
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	return conn.OpenStreamSync(ctx)
}

// leg opens a leg to a session, as an honest relay would.
func (r *hostileRelay) leg(rid wire.RendezvousID) (*quic.Stream, error) {
	far, err := r.stream()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.legs++
	preface := wire.Preface{RID: rid, Leg: r.legs, From: "192.0.2.1:1"}
	r.mu.Unlock()
	_, err = far.Write(preface.Append(nil))
	return far, err
}

func discard(far *quic.Stream) {
	far.CancelRead(tunnel.CodeDone)
	far.CancelWrite(tunnel.CodeDone)
}

// circuit is one client's leg and the daemon's, and the relay between them.
type circuit struct {
	far          *quic.Stream
	mode         channel.Mode
	client, near memoryEnd
	up, down     *way
	patience     time.Duration // from the attack until the relay hangs up
	random       io.Reader     // the client's

	pumps  sync.WaitGroup
	joined atomic.Bool
	hit    sync.Once
	struck atomic.Bool
	hungUp atomic.Bool
	timer  *time.Timer
}

// way is one direction of a circuit.
type way struct {
	// tamper returns what goes on in place of the message with this number:
	// msg1 or msg2 is 0, and records follow. It may take its time.
	tamper func(number int, message []byte) [][]byte

	mu   sync.Mutex // guards what is below: another circuit may write here too
	out  io.Writer
	end  func()
	seen [][]byte
}

func (r *hostileRelay) circuit(rid wire.RendezvousID) *circuit {
	far, err := r.leg(rid)
	if err != nil {
		r.t.Fatalf("opening a leg: %v", err)
	}
	up, down := newMemoryPipe(), newMemoryPipe()
	c := &circuit{
		far: far, mode: channel.Sealed, client: memoryEnd{down, up}, near: memoryEnd{up, down},
		patience: 300 * time.Millisecond, random: rand.Reader,
	}
	c.up = &way{out: far, end: func() { _ = far.Close() }}
	c.down = &way{out: c.near, end: func() { _ = c.near.CloseWrite() }}
	return c
}

// join is the client's way in; a circuit is good for one.
func (c *circuit) join(context.Context, tunnel.ClientConfig) (wire.Leg, error) {
	if c.joined.Swap(true) {
		return nil, errors.New("the relay has had enough")
	}
	c.pumps.Go(func() { c.up.pump(c.near, channel.Msg1Size) })
	c.pumps.Go(func() { c.down.pump(c.far, channel.Msg2Size(c.mode)) })
	return c.client, nil
}

func (w *way) pump(from io.Reader, first int) {
	for number := 0; ; number++ {
		message, err := nextMessage(from, number, first)
		if err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.end()
			return
		}
		w.mu.Lock()
		w.seen = append(w.seen, message)
		w.mu.Unlock()
		pieces := [][]byte{bytes.Clone(message)}
		if w.tamper != nil {
			pieces = w.tamper(number, pieces[0])
		}
		w.pass(pieces...)
	}
}

// nextMessage reads one message of the handshake, or one record.
func nextMessage(from io.Reader, number, first int) ([]byte, error) {
	if number == 0 {
		message := make([]byte, first)
		_, err := io.ReadFull(from, message)
		return message, err
	}
	head := make([]byte, 2)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	message := append(head, make([]byte, binary.BigEndian.Uint16(head))...)
	_, err := io.ReadFull(from, message[2:])
	return message, err
}

// pass writes on. An end that has gone is what the test looks at.
func (w *way) pass(pieces ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, piece := range pieces {
		_, _ = w.out.Write(piece)
	}
}

// came is all that was sent this way, whatever became of it.
func (w *way) came() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([][]byte(nil), w.seen...)
}

// strike notes that the attack has been made. What it leaves waiting for ever
// is let go by hanging up, as any relay can.
func (c *circuit) strike() {
	c.hit.Do(func() {
		c.struck.Store(true)
		c.timer = time.AfterFunc(c.patience, func() {
			c.hungUp.Store(true)
			c.cut()
		})
	})
}

// at replaces one message of a way.
func (c *circuit) at(w *way, number int, change func([]byte) [][]byte) {
	w.tamper = func(n int, message []byte) [][]byte {
		if n != number {
			return [][]byte{message}
		}
		c.strike()
		return change(message)
	}
}

// cut ends everything at once.
func (c *circuit) cut() {
	c.client.Reset()
	discard(c.far)
}

// done returns when nothing of the circuit is left.
func (c *circuit) done() {
	c.cut()
	c.pumps.Wait()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// The verbs of these tests: what is said is also written down, one line for
// every execution.
const relayVerbs = `
verbs:
  test.say:
    summary: Write a word down, and say it many times
    class: change
    executor: exec
    argv: [DIR/say, "{word}", "{times}"]
    params:
      word: {type: string, pattern: "^[a-z][a-z0-9-]{0,39}$", required: true}
      times: {type: integer, min: 1, max: 9000, required: true}
  test.spill:
    summary: Write for ever
    class: read
    executor: exec
    argv: [/usr/bin/yes, DIR]
`

const relayGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.say}, {verb: test.spill}]
    delegate: {to: [vendor-b, vendor-c], verbs: [test.say, test.spill], bearer: true}
`

// relayWorld is a world whose relay is hostile.
type relayWorld struct {
	*world
	hostile *hostileRelay
	others  *handle.RecipientIdentity // vendor-c's

	mu     sync.Mutex // guards what is below
	asked  map[string]bool
	bounds []bound
}

// bound is how many of some words may, and must, be written down in the end.
type bound struct {
	words       []string
	least, most int
}

func newRelayWorld(t *testing.T) *relayWorld {
	t.Helper()
	w := &relayWorld{
		world:  &world{t: t, dir: protectedDir(t), clock: newSteppedClock(), vendor: newIdentity(t)},
		others: newIdentity(t), asked: make(map[string]bool),
	}
	t.Cleanup(w.judge) // when the daemon has ended: nothing runs later
	w.hostile = newHostileRelay(t)
	w.relay = wire.Relay{Address: w.hostile.address, Pin: &w.hostile.pin}
	w.writeConfiguration()
	_, token := newTokens(t, w.dir)
	if err := daemon.NewIdentityFile(w.path("identity.key"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	var err error
	w.daemon, err = daemon.New(daemon.Config{
		Relays: []wire.Relay{w.relay}, Token: token, StateDir: w.dir, Socket: w.path("openscope.sock"),
		Grants: w.path("grants.yaml"), Verbs: w.path("verbs.yaml"), Recipients: w.path("recipients.yaml"),
		Clock: w.clock, InProcess: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.daemon.Run(ctx); err != nil {
			t.Errorf("the daemon: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	select {
	case <-w.daemon.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon does not get ready")
	}
	return w
}

func (w *relayWorld) writeConfiguration() {
	w.t.Helper()
	me, err := user.Current()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("say", "#!/bin/sh\nprintf '%s\\n' \"$1\" >>"+w.path("ran")+"\n/usr/bin/yes \"$1\" | /usr/bin/head -n \"$2\"\n")
	if err := os.Chmod(w.path("say"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.write("verbs.yaml", strings.ReplaceAll(relayVerbs, "DIR", w.dir))
	w.write("grants.yaml", strings.ReplaceAll(relayGrants, "USER", me.Username))
	w.write("recipients.yaml", fmt.Sprintf("recipients:\n  vendor-b: {key: %s}\n  vendor-c: {key: %s}\n",
		w.vendor.Public().Text(), w.others.Public().Text()))
}

// allow bounds how many of the words may be executed.
func (w *relayWorld) allow(least, most int, words ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bounds = append(w.bounds, bound{words, least, most})
}

// judge holds what was executed against what honest clients asked for.
func (w *relayWorld) judge() {
	times := make(map[string]int)
	for _, word := range w.ran() {
		times[word]++
	}
	delete(times, "")
	for word, n := range times {
		if !w.asked[word] || n > 1 {
			w.t.Errorf("%q was executed %d times; an honest client asked for it: %v", word, n, w.asked[word])
		}
	}
	for _, b := range w.bounds {
		n := 0
		for _, word := range b.words {
			n += times[word]
		}
		if n < b.least || n > b.most {
			w.t.Errorf("of %q, %d were executed, not %d to %d", b.words, n, b.least, b.most)
		}
	}
}

// shared is a session and the recipient it is for.
type shared struct {
	*relayWorld
	id       string
	h        handle.Handle
	identity *handle.RecipientIdentity
}

func (w *relayWorld) share(to string) *shared {
	w.t.Helper()
	s := &shared{relayWorld: w, identity: w.vendor}
	if to == "vendor-c" {
		s.identity = w.others
	}
	s.id, s.h = w.opened("share", "open", "--json", "--agent", "you", "--to", to, "--ttl", "29m",
		"--verb", "test.say", "--verb", "test.spill")
	return s
}

func (s *shared) circuit() *circuit { return s.hostile.circuit(s.h.RID) }

func (s *shared) connect(ctx context.Context, c *circuit) (*client.Session, error) {
	return client.Connect(ctx, client.Config{
		Handle: s.h, Identity: s.identity, StateDir: s.path("client"), Rand: c.random, Join: c.join,
	})
}

// said is what became of one call of an honest client.
type said struct {
	word      string
	connected bool
	result    client.Result
	err       error
	shown     bytes.Buffer
}

// finished reports that the client was told: this was all of it.
func (s *said) finished() bool { return s.result.Complete && s.result.Cause == call.Exited }

// say is an honest client: it connects, says all words at once, each so many
// times, and leaves. What it was shown is held to what the daemon sent.
func (s *shared) say(c *circuit, times int, words ...string) []*said {
	defer c.done()
	s.mu.Lock()
	for _, word := range words {
		s.asked[word] = true
	}
	s.mu.Unlock()
	all := make([]*said, len(words))
	for i, word := range words {
		all[i] = &said{word: word}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	session, err := s.connect(ctx, c)
	if err != nil {
		all[0].err = err
		return all
	}
	defer session.Close()
	var calls sync.WaitGroup
	for _, one := range all {
		one.connected = true
		calls.Go(func() {
			one.result, one.err = session.Call(ctx, "test.say", params("word", one.word, "times", fmt.Sprint(times)), &one.shown, io.Discard)
		})
	}
	calls.Wait()
	for _, one := range all {
		s.holdToTheTruth(one, times)
	}
	return all
}

func (s *shared) holdToTheTruth(one *said, times int) {
	truth := strings.Repeat(one.word+"\n", times)
	if !strings.HasPrefix(truth, one.shown.String()) {
		s.t.Errorf("%s: the client was shown what the daemon did not send: %.100q", one.word, one.shown.String())
	}
	if one.finished() && one.shown.String() != truth {
		s.t.Errorf("%s: %d bytes of %d were shown as complete", one.word, one.shown.Len(), len(truth))
	}
}

// survives makes an honest call in a fresh session.
func (w *relayWorld) survives(after string) {
	w.t.Helper()
	s := w.share("vendor-b")
	word := after + "-honest"
	w.allow(1, 1, word)
	if one := s.say(s.circuit(), 1, word)[0]; !one.finished() {
		w.t.Errorf("%s: an honest client afterwards: connected %v, %v %s %v", after, one.connected, one.result.Cause, one.result.Reason, one.err)
	}
	w.issuer(0, "share", "revoke", s.id)
}

// seeds runs every seed of a row, so many beside each other, and a few on each
// session: its handshakes are held to a rate, and the daemon holds 256 sessions,
// with those that have ended.
func (w *relayWorld) seeds(row string, beside, perSession int, try func(s *shared, word string, seed int, random *mathrand.Rand)) {
	w.t.Helper()
	var workers sync.WaitGroup
	var taken atomic.Int64
	for range beside {
		workers.Go(func() {
			for {
				first := int(taken.Add(int64(perSession))) - perSession
				if first >= hostileSeeds {
					return
				}
				s := w.share("vendor-b")
				for seed := first; seed < min(first+perSession, hostileSeeds); seed++ {
					try(s, fmt.Sprintf("%s-%d", row, seed), seed, mathrand.New(mathrand.NewPCG(uint64(seed), uint64(len(row)))))
				}
				if first/perSession%max(1, 5/perSession) == 0 {
					w.survives(fmt.Sprintf("%s-%d", row, first))
				}
				w.issuer(0, "share", "revoke", s.id)
			}
		})
	}
	workers.Wait()
}

// leavesNothing looks for goroutines at the very end of a row.
func leavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// many is how often a word is said where its output has to fill several
// records: msg2, READY and PASSPORT are followed by three OUT at least.
const many = 6000

// ways picks a direction and the number of one of its messages, of those that
// a call cannot do without.
func ways(c *circuit, random *mathrand.Rand) (w *way, number int) {
	if random.IntN(2) == 0 {
		return c.up, random.IntN(3)
	}
	return c.down, random.IntN(6)
}

// spoiled holds that a call whose traffic was tampered with at a message that
// it needs was not made, or not shown as complete.
func (s *shared) spoiled(c *circuit, w *way, number int, one *said) {
	if !c.struck.Load() {
		s.t.Errorf("%s: message %d never came: the attack was not made (%v)", one.word, number, one.err)
	}
	if one.finished() {
		s.t.Errorf("%s: shown as complete in spite of message %d", one.word, number)
	}
	if w == c.up {
		s.allow(0, 0, one.word)
	}
	if one.connected && (w == c.up && number < 2 || w == c.down && number < 3) {
		s.t.Errorf("%s: connected in spite of message %d", one.word, number)
	}
}

// R1

// unlike is the first place, from at on, where two neighbours differ.
func unlike(message []byte, at int) int {
	for i := range message {
		if place := (at + i) % (len(message) - 1); message[place] != message[place+1] {
			return place
		}
	}
	return 0
}

func TestARelayThatChangesAByteChangesNothing(t *testing.T) {
	leavesNothing(t)
	changes := map[int]func(message []byte, at int, value byte) []byte{
		0: func(m []byte, at int, value byte) []byte { // flip
			m[at%len(m)] ^= 1 << (value % 8)
			return m
		},
		1: func(m []byte, at int, value byte) []byte { // insert
			at %= len(m)
			if value == m[at] {
				value++
			}
			return append(m[:at:at], append([]byte{value}, m[at:]...)...)
		},
		2: func(m []byte, at int, _ byte) []byte { // delete
			at = unlike(m, at%len(m))
			return append(m[:at:at], m[at+1:]...)
		},
	}
	w := newRelayWorld(t)
	w.seeds("change", 4, 5, func(s *shared, word string, seed int, random *mathrand.Rand) {
		c := s.circuit()
		way, number := ways(c, random)
		change, at, value := changes[seed%len(changes)], random.IntN(1<<30), byte(random.Uint32())
		c.at(way, number, func(m []byte) [][]byte { return [][]byte{change(m, at, value)} })
		s.spoiled(c, way, number, s.say(c, many, word)[0])
	})
}

// R2

// unanswered writes bytes on a new leg and holds that the daemon says nothing
// to them.
func (s *shared) unanswered(what string, messages ...[]byte) {
	far, err := s.hostile.leg(s.h.RID)
	if err != nil {
		s.t.Errorf("%s: opening a leg: %v", what, err)
		return
	}
	defer discard(far)
	for _, message := range messages {
		if _, err := far.Write(message); err != nil {
			break // it has been reset already
		}
	}
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(far); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Errorf("%s: the daemon answers with %d bytes, %v", what, len(got), err)
	}
}

func TestARelayThatReplaysIsNotAnswered(t *testing.T) {
	leavesNothing(t)
	const times = 2 * hostileSeeds // of one msg1: 100,000 in all of the long run
	w := newRelayWorld(t)
	w.seeds("replay", 4, 4, func(s *shared, word string, seed int, random *mathrand.Rand) {
		c := s.circuit()
		if first := s.say(c, 1, word)[0]; !first.finished() {
			t.Errorf("%s: what is to be replayed: %v %v", word, first.result.Cause, first.err)
		}
		s.allow(1, 1, word)
		old, before := c.up.came(), c.down.came()
		again := s.circuit()
		word += "-again"
		switch seed % 5 {
		case 0: // a whole session, as it came
			again.done()
			s.unanswered(word, old...)
		case 1: // the beginning of one, many times
			again.done()
			for range times {
				s.unanswered(word, old[0])
			}
		case 2: // what followed msg1, after another msg1
			again.at(again.up, 1, func([]byte) [][]byte { return old[1:] })
			s.spoiled(again, again.up, 1, s.say(again, many, word)[0])
		case 3: // a record of the same connection, or of the one before, to the daemon
			number := 1 + random.IntN(2)
			again.at(again.up, 3, func([]byte) [][]byte {
				return [][]byte{[][][]byte{old, again.up.came()}[seed/5%2][number]}
			})
			s.endsByItself(again, s.say(again, many, word))
		case 4: // and to the client
			number := random.IntN(5)
			again.at(again.down, 5, func([]byte) [][]byte {
				return [][]byte{[][][]byte{before, again.down.came()}[seed/5%2][number%len(before)]}
			})
			s.spoiled(again, again.down, 5, s.say(again, many, word)[0])
		}
	})
}

// endsByItself holds that both ends noticed the attack, and did not only miss
// something.
func (s *shared) endsByItself(c *circuit, all []*said) {
	if !c.struck.Load() {
		s.t.Errorf("%s: the attack was not made: %v", all[0].word, all[0].err)
	}
	if c.hungUp.Load() {
		s.t.Errorf("%s: nobody noticed the attack within %v", all[0].word, c.patience)
	}
}

// R3

// swapped lets one message of a way go after the next.
func (c *circuit) swapped(w *way, number int) {
	var held []byte
	w.tamper = func(n int, message []byte) [][]byte {
		switch n {
		case number:
			held = message
			return nil
		case number + 1:
			c.strike()
			return [][]byte{message, held}
		}
		return [][]byte{message}
	}
}

func (c *circuit) doubled(w *way, number int) {
	c.at(w, number, func(m []byte) [][]byte { return [][]byte{m, m} })
}

func TestARelayThatReordersOrRepeatsRecordsEndsTheConnection(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	w.seeds("order", 4, 5, func(s *shared, word string, seed int, random *mathrand.Rand) {
		c := s.circuit()
		c.patience = 10 * time.Second
		// Three calls at once are records 2, 3 and 4 to the daemon.
		words, times, runs := []string{word + "-a", word + "-b", word + "-c"}, 1, 0
		switch seed % 4 {
		case 0:
			number := 2 + random.IntN(2)
			runs = number - 2
			c.swapped(c.up, number)
		case 1:
			number := random.IntN(5)
			runs = max(0, number-1)
			c.doubled(c.up, number)
		case 2:
			words, times, runs = words[:1], many, 1
			c.swapped(c.down, []int{1, 3, 4}[random.IntN(3)])
		case 3:
			words, times, runs = words[:1], many, 1
			c.doubled(c.down, random.IntN(6))
		}
		s.allow(0, runs, words...)
		all := s.say(c, times, words...)
		s.endsByItself(c, all)
		finished := 0
		for _, one := range all {
			if one.finished() {
				finished++
			}
		}
		if most := runs; finished > most || times == many && finished > 0 {
			t.Errorf("%s: %d calls are shown as complete, of %d that could be made", word, finished, most)
		}
	})
}

// R4

// crossed leads every message of a way, from one number on, to another way.
func (c *circuit) crossed(from, to *way, number int) {
	from.tamper = func(n int, message []byte) [][]byte {
		if n < number {
			return [][]byte{message}
		}
		c.strike()
		to.pass(message)
		return nil
	}
}

func TestARelayThatCrossesTwoSessionsJoinsNobody(t *testing.T) {
	leavesNothing(t)
	w, elsewhere := newRelayWorld(t), newRelayWorld(t)
	var others sync.Map // of a session, and of what its seeds are crossed with
	w.seeds("cross", 4, max(5, hostileSeeds/50), func(a *shared, word string, seed int, random *mathrand.Rand) {
		b := a // two connections of one session
		if way := seed % 4; way > 0 {
			key := fmt.Sprint(a.id, way)
			other, ok := others.Load(key)
			if !ok {
				// of one recipient, of two, of two daemons
				other = []*relayWorld{w, w, elsewhere}[way-1].share([]string{"vendor-b", "vendor-c", "vendor-b"}[way-1])
				others.Store(key, other)
			}
			b = other.(*shared)
		}
		ca, cb := a.circuit(), b.circuit()
		number, directions := random.IntN(4), 1+random.IntN(3)
		if seed%4 == 0 {
			number++ // which leg of a session is whose is for the relay to say
		}
		if number == 0 {
			directions = 3
		}
		toDaemon, toClient := directions&1 != 0, directions&2 != 0
		if toDaemon {
			ca.crossed(ca.up, cb.up, number)
			cb.crossed(cb.up, ca.up, number)
		}
		if toClient {
			ca.crossed(ca.down, cb.down, number)
			cb.crossed(cb.down, ca.down, number)
		}
		words := [2]string{word + "-a", word + "-b"}
		if toDaemon && number <= 2 || toClient && number <= 2 {
			a.allow(0, 0, words[0])
			b.allow(0, 0, words[1])
		}
		var both sync.WaitGroup
		for i, one := range []*shared{a, b} {
			both.Go(func() {
				got := one.say([]*circuit{ca, cb}[i], many, words[i])[0]
				if got.finished() && (toClient || number <= 2) {
					t.Errorf("%s: crossed at message %d, and complete", words[i], number)
				}
				if got.connected && (toDaemon && number < 2 || toClient && number < 3) {
					t.Errorf("%s: crossed at message %d, and connected", words[i], number)
				}
			})
		}
		both.Wait()
		if !ca.struck.Load() && !cb.struck.Load() {
			t.Errorf("%s: the attack was not made", word)
		}
	})
	elsewhere.survives("cross-elsewhere")
}

// R5

// stolen is what somebody has who stole S but no private key.
func (s *shared) stolen() (secret [32]byte, th0 channel.Transcript) {
	secret, err := openSecret(s.identity.X25519(), s.h.Header(), s.h.Enc[:], s.h.Box[:])
	if err != nil {
		s.t.Fatal(err)
	}
	return secret, channel.NewTranscript(channel.Sealed, s.h.Hash(), s.identity.X25519().PublicKey().Bytes(), s.h.RID)
}

// impostor answers handshakes with a key of its own, in its own name or in the
// daemon's.
type impostor struct {
	*ends
	name  ed25519.PublicKey
	asked bool
}

func (i *impostor) Answer(_ context.Context, _ wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	i.asked = true
	p2 := channel.P2(i.name, [16]byte{3}, [32]byte{4})
	signed := i.th0.WithMsg1(msg1).WithProof(encR).DaemonSignedBytes(enc, p2)
	return channel.Answer{ConnID: [16]byte{3}, P2: p2, Signature: ed25519.Sign(i.key, signed)}, nil
}

// impersonated lets the impostor, who has S, answer in the daemon's place.
func (s *shared) impersonated(word string, name ed25519.PublicKey) {
	secret, th0 := s.stolen()
	i := &impostor{ends: newEnds(s.t), name: name}
	i.rid, i.th0 = s.h.RID, th0
	if name == nil {
		i.name = i.public()
	}
	up, down := newMemoryPipe(), newMemoryPipe()
	var answering sync.WaitGroup
	answering.Go(func() {
		_, _ = channel.Daemon(s.t.Context(), memoryEnd{up, down}, channel.DaemonConfig{
			Mode: channel.Sealed, RID: s.h.RID, HandleHash: s.h.Hash(), Recipient: s.identity.X25519().PublicKey(),
			Keys: channel.NewKeys(wire.SecretOf(secret)), Authority: i, Guard: channel.NewGuard(time.Now), Rand: rand.Reader,
		})
	})
	_, err := client.Connect(s.t.Context(), client.Config{
		Handle: s.h, Identity: s.identity, StateDir: s.path("client"), Rand: rand.Reader,
		Join: func(context.Context, tunnel.ClientConfig) (wire.Leg, error) { return memoryEnd{down, up}, nil },
	})
	answering.Wait()
	if !errors.Is(err, client.ErrWrongDaemon) || !i.asked {
		s.t.Errorf("%s: an impostor with S: %v", word, err)
	}
}

// daemonKey is the daemon's public key, which anybody may know who was a
// recipient once.
func (w *relayWorld) daemonKey() ed25519.PublicKey {
	w.t.Helper()
	s := w.share("vendor-b")
	o := w.outsider(s.h)
	client, err := newSecond(secondConfig{handleHash: o.handleHash(), rid: s.h.RID, secret: o.secret[:], opens: o.opens})
	if err != nil {
		w.t.Fatal(err)
	}
	far, err := w.hostile.leg(s.h.RID)
	if err != nil {
		w.t.Fatal(err)
	}
	defer discard(far)
	if err := client.shake(far); err != nil {
		w.t.Fatal(err)
	}
	return client.daemonKey
}

func TestARelayThatSwapsKeysReachesNobody(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	genuine := w.daemonKey()
	w.seeds("swap", 4, 5, func(s *shared, word string, seed int, random *mathrand.Rand) {
		switch seed % 8 {
		case 0:
			s.impersonated(word, nil)
			return
		case 1:
			s.impersonated(word, genuine)
			return
		}
		secret, _ := s.stolen()
		own, err := newSecond(secondConfig{
			handleHash: s.h.Hash(), rid: s.h.RID, secret: secret[:], opens: s.identity.X25519(), seed: [32]byte{byte(seed)},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := s.circuit()
		way, number := c.up, 0
		switch seed % 8 {
		case 2: // its own fresh key in the client's msg1
			c.at(way, 0, func(m []byte) [][]byte { return [][]byte{m[:2], own.ephemeral.public(), m[2+1216:]} })
		case 3: // its own msg1, whose mac only S could make
			c.at(way, 0, func([]byte) [][]byte { return [][]byte{own.msg1()} })
		case 4: // another handshake's msg2
			other := s.circuit()
			s.say(other, 1, word+"-other")
			way = c.down
			c.at(way, 0, func([]byte) [][]byte { return other.down.came()[:1] })
		case 5: // msg1 reflected as msg2
			way = c.down
			c.at(way, 0, func(m []byte) [][]byte {
				mine := append([]byte{1, 2}, c.up.came()[0][2:]...)
				return [][]byte{append(mine, m[len(mine):]...)}
			})
		case 6: // records reflected to the client: FINISHED as READY, or CALL as output
			way, number = c.down, []int{1, 4}[random.IntN(2)]
			c.at(way, number, func([]byte) [][]byte { return [][]byte{c.up.came()[(number+1)/2]} })
		case 7: // and to the daemon: READY as the call
			number = 2
			c.at(way, number, func([]byte) [][]byte { return [][]byte{c.down.came()[1+random.IntN(2)]} })
		}
		s.spoiled(c, way, number, s.say(c, many, word)[0])
		if seed%8 == 3 && len(c.down.came()) == 0 {
			t.Errorf("%s: the daemon did not answer a mac that S made", word)
		}
	})
}

// R6

func TestARelayThatCutsShowsNothingAsComplete(t *testing.T) {
	leavesNothing(t)
	ends := map[string]func(c *circuit, w *way){
		"an end":  func(_ *circuit, w *way) { w.mu.Lock(); defer w.mu.Unlock(); w.end() },
		"a reset": func(c *circuit, _ *way) { c.cut() },
		"silence": func(*circuit, *way) {},
	}
	names := []string{"an end", "a reset", "silence"}
	// Said once, a word comes in one OUT, and END is message 4 to the client.
	type place struct{ up, times, number int }
	var places []place
	for number := range 6 {
		places = append(places, place{0, many, number})
	}
	for number := range 5 {
		places = append(places, place{0, 1, number})
	}
	for number := range 3 {
		places = append(places, place{1, many, number})
	}
	w := newRelayWorld(t)
	w.seeds("cut", 4, 5, func(s *shared, word string, seed int, random *mathrand.Rand) {
		// Every boundary comes first; afterwards, any byte.
		p, share := places[seed%len(places)], 0.0
		if seed >= len(places) {
			share = random.Float64()
		}
		c := s.circuit()
		way := c.down
		if p.up == 1 {
			way = c.up
		}
		end := ends[names[random.IntN(len(names))]]
		over := false
		way.tamper = func(n int, m []byte) [][]byte {
			if n < p.number {
				return [][]byte{m}
			}
			if over {
				return nil
			}
			over = true
			way.pass(m[:int(share*float64(len(m)))])
			c.strike()
			end(c, way)
			return nil
		}
		s.spoiled(c, way, p.number, s.say(c, p.times, word)[0])
	})
}

// R7

// gate is where a relay holds what a client sends.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

// hold waits until the gate is reached; a client that gave up before is what
// the test looks at.
func (g *gate) hold(gone <-chan struct{}) {
	select {
	case <-g.reached:
	case <-gone:
	}
}

// inBackground is [shared.say], for a test that goes on meanwhile.
func (s *shared) inBackground(c *circuit, times int, words ...string) (all func() []*said, gone chan struct{}) {
	var got []*said
	gone = make(chan struct{})
	go func() {
		defer close(gone)
		got = s.say(c, times, words...)
	}()
	return func() []*said { <-gone; return got }, gone
}

func TestARelayThatHoldsACallForMoreThanTenSecondsHasItDropped(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	// One at a time: the clock is everybody's.
	w.seeds("hold", 1, 1, func(s *shared, word string, seed int, random *mathrand.Rand) {
		seconds, runs := 11+random.IntN(1690), 0
		if seed%4 == 3 {
			seconds, runs = 1+random.IntN(8), 1
		}
		s.allow(runs, runs, word)
		c, g := s.circuit(), newGate()
		c.patience = 10 * time.Second
		share := []float64{0, 0.5, 0.99}[seed%3] // of the call that is not held
		c.up.tamper = func(n int, m []byte) [][]byte {
			switch {
			case n < 2:
				return [][]byte{m}
			case n > 2: // also the client's second try, when it is told that it came too late
				return nil
			}
			part := int(share * float64(len(m)))
			c.up.pass(m[:part])
			close(g.reached)
			<-g.open
			c.strike()
			return [][]byte{m[part:]}
		}
		all, gone := s.inBackground(c, 1, word)
		g.hold(gone)
		wall := time.Duration(seconds) * time.Second
		if seed%2 == 1 {
			wall = 0 // somebody set the clock back
		}
		w.clock.step(wall, time.Duration(seconds)*time.Second)
		close(g.open)
		s.await(1, word)
		if runs == 0 {
			c.cut()
		}
		one := all()[0]
		if one.finished() != (runs == 1) || !c.struck.Load() {
			t.Errorf("%s: held for %d s, and finished: %v (%v %v)", word, seconds, one.finished(), one.result.Cause, one.err)
		}
		stale := 0
		for _, e := range w.entries(s.id) {
			if e.Cause == "stale" {
				stale++
			}
		}
		if stale != 1-runs {
			t.Errorf("%s: held for %d s, %d calls came too late by the log", word, seconds, stale)
		}
	})
}

func TestARelayThatTricklesOldCallsHasTheLateOnesDropped(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	w.seeds("trickle", 1, 1, func(s *shared, word string, seed int, random *mathrand.Rand) {
		c := s.circuit()
		pause := []int{4, 6, 11, 12 + random.IntN(200)}[seed%4]
		words := []string{word + "-a", word + "-b", word + "-c"}
		// The first record held is a call; WINDOWs are among the others.
		s.allow(0, 10/pause, words...)
		c.up.tamper = func(n int, m []byte) [][]byte {
			if n < 2 {
				return [][]byte{m}
			}
			if n == 3 {
				s.await(1, word)
			}
			w.clock.step(time.Duration(pause)*time.Second, time.Duration(pause)*time.Second)
			return [][]byte{m}
		}
		c.down.tamper = func(n int, m []byte) [][]byte {
			if n < 3 {
				return [][]byte{m}
			}
			return nil // a client that is told it came too late tries again
		}
		all, _ := s.inBackground(c, 1, words...)
		s.await(len(words), word)
		c.cut() // which ends what runs
		if n := counted(w.entries(s.id), "call"); n < min(1, 10/pause) || n > 10/pause {
			t.Errorf("%s: one every %d s, and %d calls are let through", word, pause, n)
		}
		for _, one := range all() {
			if one.finished() {
				t.Errorf("%s: complete, and no END came", one.word)
			}
		}
	})
}

// await waits until the log has an answer to so many calls.
func (s *shared) await(calls int, word string) {
	for began := time.Now(); s.judged(s.id) < calls; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			s.t.Errorf("%s: the log has no answer to %d calls", word, calls)
			return
		}
	}
}

// judged is how many calls of a session the log has an answer to.
func (w *relayWorld) judged(session string) int {
	all := w.entries(session)
	return counted(all, "call") + counted(all, "deny")
}

func TestARelayThatHoldsTheAnswerToAPingRunsNoApprovedCall(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	for seed := range hostileSeeds {
		random := mathrand.New(mathrand.NewPCG(uint64(seed), 7))
		seconds, runs := 11+random.IntN(1690), 0
		if seed%4 == 3 {
			seconds, runs = 0, 1
		}
		w.heldAnswer(fmt.Sprintf("answer-%d", seed), seconds, runs)
		if t.Failed() {
			break // every other seed would say the same
		}
	}
	w.survives("answer")
}

// heldAnswer has a call wait for the issuer, and its client's answer to the
// PING that follows wait for so long.
func (w *relayWorld) heldAnswer(word string, seconds, runs int) {
	w.t.Helper()
	s := &shared{relayWorld: w, identity: w.vendor}
	s.id, s.h = w.opened("share", "open", "--json", "--agent", "you", "--bearer", "--ttl", "29m", "--verb", "test.say")
	defer w.issuer(0, "share", "revoke", s.id)
	w.allow(runs, 1, word) // a client that is told it came too late tries again, once
	w.asked[word] = true
	c, g := s.circuit(), newGate()
	c.mode = channel.Bearer
	defer c.done()
	var holding atomic.Bool
	c.up.tamper = func(n int, m []byte) [][]byte {
		if holding.CompareAndSwap(true, false) {
			close(g.reached)
			<-g.open
		}
		return [][]byte{m}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	session, err := s.connect(ctx, c)
	if err != nil {
		w.t.Fatalf("%s: %v", word, err)
	}
	defer session.Close()
	ended := make(chan callResult, 1)
	go func() {
		r, err := session.Call(ctx, "test.say", params("word", word, "times", "1"), io.Discard, io.Discard)
		ended <- callResult{Result: r, err: err}
	}()
	until(w.t, 10*time.Second, "the call waits", func() bool { return len(c.down.came()) >= 4 })
	holding.Store(true)
	w.issuer(0, "share", "confirm", s.id, strings.Join(session.Words(), " "))
	g.hold(ctx.Done())
	w.clock.step(time.Duration(seconds)*time.Second, time.Duration(seconds)*time.Second)
	close(g.open)
	r := <-ended
	stale := slices.ContainsFunc(w.entries(s.id), func(e auditEntry) bool { return e.Kind == "deny" && e.Cause == call.Stale.String() })
	if stale != (runs == 0) {
		w.t.Errorf("%s: the answer was held for %d s, and the call ended as %v %s %v", word, seconds, r.Cause, r.Reason, r.err)
	}
}

// R8

// narrow gives every stream to the relay a little window.
func (w *relayWorld) narrow(window uint64) {
	w.t.Helper()
	before := w.hostile.counted(&w.hostile.spoken)
	w.hostile.window = window
	w.hostile.show(w.hostile.honest)
	until(w.t, 10*time.Second, "the daemon comes back", func() bool { return w.hostile.counted(&w.hostile.spoken) > before })
}

// endsWithin holds that the daemon gives a leg up within some time, and not at once.
func endsWithin(t testing.TB, word string, far *quic.Stream, from, to time.Duration) {
	began := time.Now()
	select {
	case <-far.Context().Done():
	case <-time.After(to):
		t.Errorf("%s: the daemon still has the leg after %v", word, to)
	}
	if took := time.Since(began); took < from {
		t.Errorf("%s: the daemon gave the leg up after %v", word, took)
	}
}

// trickle writes a byte every so often until the reader has gone.
func trickle(far *quic.Stream, bytes []byte, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range bytes {
		select {
		case <-tick.C:
		case <-far.Context().Done():
			return
		}
		_, _ = far.Write(bytes[i : i+1])
	}
}

// spill starts the call that writes for ever.
func (s *shared) spill(c *circuit) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	session, err := s.connect(ctx, c)
	if err != nil {
		cancel()
		s.t.Errorf("connecting: %v", err)
		return func() { c.done() }
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		r, _ := session.Call(ctx, "test.spill", nil, io.Discard, io.Discard)
		if r.Complete {
			s.t.Error("what never ends is shown as complete")
		}
	})
	return func() {
		c.cut()
		cancel()
		calls.Wait()
		session.Close()
		c.done()
	}
}

// spilling counts the processes that write for ever.
func (w *relayWorld) spilling() int {
	out, _ := exec.Command("pgrep", "-c", "-f", "^/usr/bin/yes "+w.dir).Output()
	n, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	return n
}

func TestARelayThatIsSlowOrSilentHoldsUpNobodyElse(t *testing.T) {
	leavesNothing(t)
	w, crowded, narrow := newRelayWorld(t), newRelayWorld(t), newRelayWorld(t)
	var beside sync.WaitGroup
	beside.Go(crowded.halfOpen)
	beside.Go(narrow.stuck)
	w.seeds("slow", 10, max(1, hostileSeeds/100), func(s *shared, word string, seed int, random *mathrand.Rand) {
		switch seed % 4 {
		case 0: // msg1, a byte at a time
			far, err := s.hostile.leg(s.h.RID)
			if err != nil {
				t.Fatal(err)
			}
			defer discard(far)
			var writing sync.WaitGroup
			defer writing.Wait()
			writing.Go(func() { trickle(far, make([]byte, channel.Msg1Size), 10*time.Millisecond) })
			endsWithin(t, word, far, 3*time.Second, 7*time.Second)
		case 1: // FINISHED, a byte at a time
			s.allow(0, 0, word)
			c := s.circuit()
			began := time.Now()
			c.up.tamper = func(n int, m []byte) [][]byte {
				if n == 1 {
					trickle(c.far, m, 60*time.Millisecond)
				}
				return [][]byte{m}
			}
			one := s.say(c, 1, word)[0]
			if took := time.Since(began); one.connected || took < 7*time.Second || took > 13*time.Second {
				t.Errorf("%s: connected %v after %v: %v", word, one.connected, took, one.err)
			}
		case 2: // the output is not passed on, and another call is made meanwhile
			c, g := s.circuit(), newGate()
			c.down.tamper = func(n int, m []byte) [][]byte {
				if n >= 3 {
					<-g.open
				}
				return [][]byte{m}
			}
			stop := s.spill(c)
			until(t, 10*time.Second, "there is output", func() bool { return len(c.down.came()) > 3 })
			if one := s.say(s.circuit(), many, word)[0]; !one.finished() {
				t.Errorf("%s: beside a leg that is not read: %v %v", word, one.result.Cause, one.err)
			}
			close(g.open)
			stop()
		case 3: // the client's acknowledgements are not
			c := s.circuit()
			c.up.tamper = func(n int, m []byte) [][]byte {
				if n > 2 {
					return nil
				}
				return [][]byte{m}
			}
			stop := s.spill(c)
			until(t, 10*time.Second, "there is output", func() bool { return len(c.down.came()) > 3 })
			if one := s.say(s.circuit(), many, word)[0]; !one.finished() {
				t.Errorf("%s: beside a leg that is not acknowledged: %v %v", word, one.result.Cause, one.err)
			}
			stop()
			const most = 128 << 10 // the first credit is 64 KiB
			if n := len(bytes.Join(c.down.came(), nil)); n > most {
				t.Errorf("%s: %d bytes came that were never acknowledged", word, n)
			}
		}
	})
	beside.Wait()
	until(t, 10*time.Second, "nothing runs for a leg that has gone", func() bool { return w.spilling() == 0 })
}

// halfOpen opens many legs that say nothing.
func (w *relayWorld) halfOpen() {
	const legs, kept = 60, 16
	s := w.share("vendor-b")
	open := make([]*quic.Stream, legs)
	for i := range open {
		far, err := w.hostile.leg(s.h.RID)
		if err != nil {
			w.t.Errorf("half open: %v", err)
			return
		}
		defer discard(far)
		open[i] = far
	}
	standing := func() (n int) {
		for _, far := range open {
			if far.Context().Err() == nil {
				n++
			}
		}
		return n
	}
	until(w.t, 3*time.Second, "the oldest half-open legs are dropped", func() bool { return standing() <= kept })
	w.survives("slow-half-open")
	until(w.t, 8*time.Second, "all half-open legs are dropped", func() bool { return standing() == 0 })
}

// stuck has the daemon write to legs that are never read, through a window that
// is full at once: nothing it writes may keep it from giving them up.
func (w *relayWorld) stuck() {
	w.narrow(1 << 10)
	s := w.share("vendor-b")
	secret, _ := s.stolen()
	own, err := newSecond(secondConfig{handleHash: s.h.Hash(), rid: s.h.RID, secret: secret[:], opens: s.identity.X25519()})
	if err != nil {
		w.t.Errorf("stuck: %v", err)
		return
	}
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { // msg2 is larger than the window
		far, err := w.hostile.leg(s.h.RID)
		if err != nil {
			w.t.Errorf("stuck: %v", err)
			return
		}
		defer discard(far)
		if _, err := far.Write(own.msg1()); err != nil {
			w.t.Errorf("stuck: %v", err)
		}
		endsWithin(w.t, "a leg whose msg2 is not read", far, 0, 13*time.Second)
	})
	// A connection whose client has gone in the middle of a call is given up after
	// 15 s of silence. The call goes on without it, as far as what is kept of its
	// output has room, and a revoke ends it at once all the same.
	c, g := s.circuit(), newGate()
	c.up.tamper = func(n int, m []byte) [][]byte {
		if n > 2 {
			return nil
		}
		return [][]byte{m}
	}
	c.down.tamper = func(n int, m []byte) [][]byte {
		if n >= 3 {
			<-g.open
		}
		return [][]byte{m}
	}
	c.up.end = func() {} // nor does the relay say that the client has gone
	stop := s.spill(c)
	defer stop()
	defer close(g.open)
	until(w.t, 10*time.Second, "the call runs", func() bool { return w.spilling() > 0 })
	endsWithin(w.t, "a leg whose output is not read", c.far, 0, 19500*time.Millisecond)
	if n := w.spilling(); n > 1 {
		w.t.Errorf("%d commands run for one call", n)
	}
	w.issuer(0, "share", "revoke", s.id)
	until(w.t, 2*time.Second, "a revoked session's command is gone", func() bool { return w.spilling() == 0 })
}

// R9

// newHostileSite is a daemon in a process of its own, whose memory can be
// looked at, on a hostile relay.
func newHostileSite(t *testing.T) (*site, *hostileRelay) {
	t.Helper()
	r := newHostileRelay(t)
	s := &site{t: t, dir: protectedDir(t), listen: r.address, pin: r.pin.String()}
	token := regexp.MustCompile(`ost1[0-9a-z]+`).FindString(s.must("openscope-relay", "token", "new", "bench", "--state", s.path("relay")))
	s.write("token", token+"\n", 0o600)
	s.must("openscope", "init", "--dir", s.path("etc"), "--relay", s.listen, "--relay-pin", s.pin, "--token", "@"+s.path("token"))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.write("etc/verbs.yaml", strings.ReplaceAll(testVerbs, "DIR", s.dir), 0o644)
	s.write("etc/grants.yaml", strings.ReplaceAll(testGrants, "USER", me.Username), 0o644)
	s.startDaemon()
	s.must("openscope-reflect-client", "keygen")
	s.must("openscope", "recipient", "add", "vendor-b", strings.TrimSpace(s.must("openscope-reflect-client", "key")))
	return s, r
}

// resident is a line of a process's memory account, in bytes.
func (p *process) resident(t *testing.T, line string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var kilobytes int
	_, rest, _ := strings.Cut(string(text), line+":")
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		t.Fatalf("%s of the daemon: %v", line, err)
	}
	return kilobytes << 10
}

// honestCall opens a session at the site and makes a call in it.
func (s *site) honestCall(r *hostileRelay, word string) (h handle.Handle) {
	s.t.Helper()
	s.open("10m", "test.echo")
	defer s.must("openscope", "share", "revoke", s.id)
	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	c := r.circuit(h.RID)
	defer c.done()
	session, err := client.Connect(s.t.Context(), client.Config{Handle: h, Identity: s.identity(), StateDir: s.path("client"), Rand: rand.Reader, Join: c.join})
	if err != nil {
		s.t.Fatalf("%s: an honest client: %v", word, err)
	}
	defer session.Close()
	var out bytes.Buffer
	result, err := session.Call(s.t.Context(), "test.echo", params("text", word), &out, io.Discard)
	if err != nil || !result.Complete || out.String() != word+"\n" {
		s.t.Errorf("%s: an honest call: %v %v %q", word, result.Cause, err, out.String())
	}
	return h
}

// prefaces are first bytes of a leg for which there is none.
func prefaces(rid wire.RendezvousID, random *mathrand.Rand) map[string][]byte {
	good := wire.Preface{RID: rid, Leg: 1, From: "192.0.2.1:1"}.Append(nil)
	with := func(at int, value byte) []byte {
		b := bytes.Clone(good)
		b[at] = value
		return b
	}
	var unknown wire.RendezvousID
	for i := range unknown {
		unknown[i] = byte(random.Uint32())
	}
	return map[string][]byte{
		"another session":      wire.Preface{RID: unknown, Leg: 1}.Append(nil),
		"no session":           wire.Preface{}.Append(nil),
		"the session":          good,
		"65,535 bytes":         append([]byte{byte(wire.TypePreface), 0xff, 0xff}, make([]byte, 1<<16)...),
		"254 bytes":            append([]byte{byte(wire.TypePreface), 0, 254}, make([]byte, 254)...),
		"no bytes":             {byte(wire.TypePreface), 0, 0},
		"another type":         with(0, byte(wire.TypeJoin)),
		"no type":              with(0, 0),
		"an older version":     with(3, 0),
		"a newer version":      with(3, 2),
		"a longer address":     with(3+25, 255),
		"an escape in address": with(3+26, 0x1b),
	}
}

func TestARelayThatFloodsStopsNothingAndFillsNothing(t *testing.T) {
	leavesNothing(t)
	const most = 64 << 20
	s, r := newHostileSite(t)
	h := s.honestCall(r, "flood-before")
	before := s.daemon.resident(t, "VmRSS")
	for seed := range hostileSeeds {
		random := mathrand.New(mathrand.NewPCG(uint64(seed), 9))
		junk := make([]byte, 1<<random.IntN(14))
		all := prefaces(h.RID, random)
		names := slices.Sorted(maps.Keys(all))
		for range floodedStreams {
			far, err := r.stream()
			if err != nil {
				t.Fatalf("flood-%d: %v", seed, err)
			}
			_ = far.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, _ = far.Write(all[names[random.IntN(len(names))]]) // it may be refused
			_, _ = far.Write(junk)                                // before all of it is written
			discard(far)
		}
		if seed%5 == 0 {
			h = s.honestCall(r, fmt.Sprintf("flood-%d", seed))
		}
	}
	grown := func() int { return s.daemon.resident(t, "VmHWM") - before }
	t.Logf("the daemon grew by %d MiB for %d streams", grown()>>20, floodedStreams*hostileSeeds)
	if grown() > most {
		t.Errorf("the daemon grew by %d MiB for streams that come and go", grown()>>20)
	}
	s.heldPrefaces(r)
	if grown() > most {
		t.Errorf("the daemon grew by %d MiB for %d streams at once", grown()>>20, tunnel.MaxDaemonStreams)
	}
	s.honestCall(r, "flood-after")
}

// heldPrefaces fills as many streams as there may be, behind some that hold up
// their acceptance.
func (s *site) heldPrefaces(r *hostileRelay) {
	s.t.Helper()
	var open []*quic.Stream
	defer func() {
		for _, far := range open {
			discard(far)
		}
	}()
	junk := make([]byte, 60<<10)
	for i := range tunnel.MaxDaemonStreams {
		far, err := r.stream()
		if err != nil {
			s.t.Fatalf("stream %d: %v", i, err)
		}
		open = append(open, far)
		_ = far.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if i < 2 {
			_, _ = far.Write([]byte{byte(wire.TypePreface)})
			continue
		}
		_, _ = far.Write(junk)
	}
	until(s.t, 20*time.Second, "the daemon gives all of them up", func() bool {
		return !slices.ContainsFunc(open, func(far *quic.Stream) bool { return far.Context().Err() == nil })
	})
}

// R10

// oldFace is something that a relay shows of itself that is not right, and how
// far a daemon then goes.
type oldFace struct {
	name   string
	change func(f *face)
	spoken bool // it says hello before it sees
}

func oldFaces(t *testing.T) []oldFace {
	t.Helper()
	other, _, err := relay.SelfSigned(protectedDir(t), rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	answer := func(b []byte) func(*face) { return func(f *face) { f.answer = b } }
	good := wire.HelloAck{Sessions: 1024, Legs: 8}.Append(nil)
	version := func(v byte) []byte { b := bytes.Clone(good); b[3] = v; return b }
	return []oldFace{
		{"another certificate", func(f *face) { f.certificate = other }, false},
		{"an older protocol", func(f *face) { f.alpn = "openscope-relay/0" }, false},
		{"another protocol", func(f *face) { f.alpn = "h3" }, false},
		{"an older version", answer(version(0)), true},
		{"a newer version", answer(version(2)), true},
		{"a huge answer", answer(append([]byte{byte(wire.TypeHelloAck), 0xff, 0xff}, make([]byte, 1<<16)...)), true},
		{"another answer", answer(wire.RegisterAck{}.Append(nil)), true},
	}
}

func TestARelayThatComesBackAsAnotherIsNotBelieved(t *testing.T) {
	leavesNothing(t)
	faces := oldFaces(t)
	const worlds = 10
	var beside sync.WaitGroup
	for first := range worlds {
		w := newRelayWorld(t)
		beside.Go(func() {
			s := w.share("vendor-b")
			for seed := first; seed < hostileSeeds; seed += worlds {
				word := fmt.Sprintf("face-%d", seed)
				s.oldBytes(word, seed/worlds)
				s.faces(word, faces[(seed+seed/worlds)%len(faces)])
				w.allow(1, 1, word)
				if one := s.say(s.circuit(), 1, word)[0]; !one.finished() {
					t.Errorf("%s: when the relay is itself again: %v %v", word, one.result.Cause, one.err)
				}
				if seed%100 == 99 { // long before the session's end
					w.issuer(0, "share", "extend", s.id, "--ttl", "20m")
				}
			}
		})
	}
	beside.Wait()
}

// faces restarts the relay as another, and then as itself.
func (s *shared) faces(word string, f oldFace) {
	r, changed := s.hostile, s.hostile.honest
	f.change(&changed)
	r.show(changed)
	dialed, spoken, stood := r.counted(&r.dialed), r.counted(&r.spoken), r.standing(s.h.RID)
	tried := &r.dialed
	if f.spoken {
		tried = &r.spoken
	}
	before := map[*int]int{&r.dialed: dialed, &r.spoken: spoken}[tried]
	until(s.t, 10*time.Second, word+": the daemon tries "+f.name, func() bool { return r.counted(tried) > before })
	if leg, err := s.joined(); err == nil {
		leg.Reset()
		if !f.spoken {
			s.t.Errorf("%s: a client joins %s", word, f.name)
		}
	}
	if got := r.counted(&r.spoken); !f.spoken && got != spoken {
		s.t.Errorf("%s: somebody says hello to %s", word, f.name)
	}
	if r.standing(s.h.RID) != stood {
		s.t.Errorf("%s: the daemon stands on %s", word, f.name)
	}
	r.show(r.honest)
	until(s.t, 10*time.Second, word+": the daemon comes back", func() bool { return r.standing(s.h.RID) != stood })
}

// joined is the client's own way to the relay.
func (s *shared) joined() (wire.Leg, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	return tunnel.Join(ctx, tunnel.ClientConfig{
		Relays: s.h.Relays, RID: s.h.RID, Sign: func([32]byte) []byte { return make([]byte, ed25519.SignatureSize) },
	})
}

// oldBytes sets the version of msg1 or msg2 back.
func (s *shared) oldBytes(word string, which int) {
	word += "-old"
	c := s.circuit()
	way := []*way{c.up, c.down}[which%2]
	version := byte(which / 2 % 2 * 2) // 0 or 2
	c.at(way, 0, func(m []byte) [][]byte { m[0] = version; return [][]byte{m} })
	s.spoiled(c, way, 0, s.say(c, 1, word)[0])
}

// R11

// recording is what a relay kept of one session, and what was stolen later from
// everybody who took part.
type recording struct {
	up, down [][]byte
	secret   [32]byte // S
	opens    *handle.RecipientIdentity
	h        handle.Handle
}

// decrypt is all that can be made of a recording with an ephemeral key: S and
// the recipient's key give everything else that msg2 and the records need.
func (r *recording) decrypt(seed [32]byte) (plain []byte, err error) {
	c, err := newSecond(secondConfig{handleHash: r.h.Hash(), rid: r.h.RID, secret: r.secret[:], opens: r.opens.X25519(), seed: seed})
	if err != nil {
		return nil, err
	}
	c.th1 = hash("th1", c.th0[:], r.up[0])
	if err := c.takeMsg2(r.down[0]); err != nil {
		return nil, fmt.Errorf("msg2: %w", err)
	}
	for _, direction := range []struct {
		stream  *recordStream
		records [][]byte
	}{{&c.up, r.up[1:]}, {&c.down, r.down[1:]}} {
		from := bytes.NewReader(bytes.Join(direction.records, nil))
		for from.Len() > 0 {
			_, body, err := direction.stream.open(from)
			if err != nil {
				return plain, err
			}
			plain = append(plain, body...)
		}
	}
	return plain, nil
}

// replay is the same with the product's own client, which takes the recording
// for its daemon, and is asked for the passport in it.
func (r *recording) replay(ctx context.Context, random io.Reader) (*passport.Passport, error) {
	up, down := newMemoryPipe(), newMemoryPipe()
	for _, message := range r.down {
		_, _ = down.Write(message)
	}
	down.close()
	session, err := client.Connect(ctx, client.Config{
		Handle: r.h, Identity: r.opens, Rand: random,
		Join: func(context.Context, tunnel.ClientConfig) (wire.Leg, error) { return memoryEnd{down, up}, nil },
	})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	return session.Passport(), nil
}

func TestARelayThatRecordsReadsNothingWithEveryKeyStolenLater(t *testing.T) {
	leavesNothing(t)
	w := newRelayWorld(t)
	w.seeds("record", 4, 5, func(s *shared, word string, seed int, random *mathrand.Rand) {
		c := s.circuit()
		var drawn bytes.Buffer // an X-Wing seed and nC come first
		c.random = io.TeeReader(rand.Reader, &drawn)
		s.allow(1, 1, word)
		if one := s.say(c, 1, word)[0]; !one.finished() {
			t.Errorf("%s: what is recorded: %v %v", word, one.result.Cause, one.err)
			return
		}
		secret, _ := s.stolen()
		r := &recording{up: c.up.came(), down: c.down.came(), secret: secret, opens: s.identity, h: s.h}
		ephemeral := bytes.Clone(drawn.Bytes()[:64])
		// X-Wing's seed is a hash of what was drawn first. Both ways to read it work with the one key that no longer exists.
		if plain, err := r.decrypt([32]byte(sha3.SumSHAKE256(ephemeral[:32], 32))); err != nil || bytes.Count(plain, []byte(word)) < 2 {
			t.Errorf("%s: with the ephemeral key, the recording does not open: %v", word, err)
		}
		if read, err := r.replay(t.Context(), bytes.NewReader(ephemeral)); err != nil || len(read.Grant.Verbs) != 2 {
			t.Errorf("%s: with the ephemeral key, the client does not open it: %v", word, err)
		}
		for _, key := range s.everyKey(r, random) {
			if plain, err := r.decrypt(key); err == nil || len(plain) > 0 {
				t.Errorf("%s: the recording opens with %x: %q", word, key, plain)
			}
		}
		for _, key := range s.everyKey(r, random)[:4] {
			guess := append(key[:], ephemeral[32:]...) // even where nC is known
			if read, err := r.replay(t.Context(), bytes.NewReader(guess)); err == nil {
				t.Errorf("%s: the client opens it with %x: %v", word, key, read)
			}
		}
	})
}

// everyKey is every secret that outlives a session, in every form that could be
// taken for the ephemeral key's seed.
func (s *shared) everyKey(r *recording, random *mathrand.Rand) (keys [][32]byte) {
	stolen := [][]byte{
		r.secret[:], extract([]byte("openscope/1 S"), r.secret[:]),
		s.identity.X25519().Bytes(), s.identity.Ed25519().Seed(), []byte(s.handleText()),
	}
	for _, file := range []string{"identity.key", "tokens"} {
		text, err := os.ReadFile(s.path(file))
		if err != nil {
			s.t.Error(err)
		}
		stolen = append(stolen, text)
		for line := range strings.FieldsSeq(string(text)) {
			stolen = append(stolen, []byte(line))
		}
	}
	private, err := x509.MarshalPKCS8PrivateKey(s.hostile.honest.certificate.PrivateKey)
	if err != nil {
		s.t.Error(err)
	}
	stolen = append(stolen, private, bytes.Join(r.up, nil), bytes.Join(r.down, nil))
	for _, secret := range stolen {
		keys = append(keys, sha256.Sum256(secret))
		if len(secret) >= 32 {
			keys = append(keys, [32]byte(secret[:32]), [32]byte(secret[len(secret)-32:]))
		}
	}
	for range 2 {
		var key [32]byte
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		keys = append(keys, key)
	}
	return append(keys, [32]byte{})
}

func (s *shared) handleText() string {
	return string(s.h.Header()) + string(s.h.Enc[:]) + string(s.h.Box[:])
}
