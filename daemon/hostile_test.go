package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/seam"
	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

func TestMain(m *testing.M) {
	Shim()
	goleak.VerifyTestMain(m)
}

// hostileHalf is the core with a net half that an attacker has taken over: it
// sees all that passes the seam, and says across it what it likes.
type hostileHalf struct {
	*core
	t     *testing.T
	dir   string
	clock *handClock
	owner *handle.RecipientIdentity
	key   ed25519.PrivateKey // the owner's
	ctx   context.Context    // of the issuer's commands

	mu     sync.Mutex
	served map[wire.RendezvousID]served
}

// handClock stands still until it is moved.
type handClock struct{ boot atomic.Int64 }

var clockBegan = time.Now().Truncate(time.Second)

func (c *handClock) Wall() time.Time      { return clockBegan.Add(time.Duration(c.boot.Load())) }
func (c *handClock) Boot() time.Duration  { return time.Hour + time.Duration(c.boot.Load()) }
func (c *handClock) step(d time.Duration) { c.boot.Add(int64(d)) }

const seamVerbs = `
verbs:
  test.mark:
    summary: Leave one new file behind for every run
    class: change
    executor: exec
    argv: [/bin/mktemp, "DIR/mark.{name}.XXXXXX"]
    params:
      name: {type: string, required: true}
  test.hold:
    summary: Do not end
    class: read
    executor: exec
    argv: [/bin/sh, -c, "mktemp DIR/held.XXXXXX && exec sleep 86399"]
  test.spill:
    summary: Write for ever
    class: read
    executor: exec
    argv: [/usr/bin/yes, DIR]
`

const seamGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.mark}, {verb: test.hold}, {verb: test.spill}]
    delegate:
      to: [vendor-b]
      verbs: [test.mark, test.hold, test.spill]
`

func newHostileHalf(t *testing.T) *hostileHalf {
	t.Helper()
	dir, err := os.MkdirTemp("", "openscope-seam-") // the daemon demands a protected one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &hostileHalf{t: t, dir: dir, clock: new(handClock), served: make(map[wire.RendezvousID]served)}
	h.owner, err = handle.NewRecipientIdentity(rand.Reader)
	me, lookup := user.Current()
	if err := errors.Join(err, lookup); err != nil {
		t.Fatal(err)
	}
	h.key = h.owner.Ed25519()
	for name, text := range map[string]string{
		"verbs.yaml":      strings.ReplaceAll(seamVerbs, "DIR", dir),
		"grants.yaml":     strings.ReplaceAll(seamGrants, "USER", me.Username),
		"recipients.yaml": fmt.Sprintf("recipients:\n  vendor-b: {key: %s}\n", h.owner.Public().Text()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := NewIdentityFile(filepath.Join(dir, "identity.key"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	h.core, err = newCore(Config{
		StateDir: dir, Clock: h.clock, Verbs: filepath.Join(dir, "verbs.yaml"),
		Grants: filepath.Join(dir, "grants.yaml"), Recipients: filepath.Join(dir, "recipients.yaml"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.openLog(); err != nil {
		t.Fatal(err)
	}
	h.network = h
	working, stop := context.WithCancel(context.Background())
	h.start(working)
	t.Cleanup(func() {
		stop()
		h.calls.Wait()
		if err := h.closeLog(); err != nil {
			t.Error(err)
		}
	})
	issuer, err := principal.Lookup(me.Username)
	if err != nil {
		t.Fatal(err)
	}
	h.ctx = principal.NewContext(working, issuer)
	return h
}

// The net half's side of the seam, as far as the core needs it.

func (h *hostileHalf) Register(context.Context, wire.RendezvousID) ([]wire.Relay, error) {
	return []wire.Relay{{Address: "127.0.0.1:1"}}, nil
}

func (h *hostileHalf) Serve(s served) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.served[s.RID] = s
}

func (h *hostileHalf) Drop(wire.RendezvousID)    {}
func (h *hostileHalf) Relays() []seam.RelayState { return nil }

// open opens a session and returns what the net half is told of it.
func (h *hostileHalf) open(specs ...string) (id string, s served) {
	h.t.Helper()
	opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: specs, TTL: 30 * time.Minute})
	if err != nil {
		h.t.Fatal(err)
	}
	parsed, err := handle.Parse(string(opened.Handle))
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return opened.ID, h.served[parsed.RID]
}

// meeting is a handshake as the net half has it: the core's answer, and the
// recipient's part, which it can see and change but not sign.
type meeting struct {
	half      *hostileHalf
	session   served
	id        connID
	ct2       []byte
	nonce     [32]byte
	th1b      channel.Transcript
	enc       []byte
	challenge call.Challenge
	key       ed25519.PrivateKey // who joins
	replaces  connID
	list      []channel.Resume // calls it takes over
}

// meet has the core answer. msg1 is made up but for the commitment: only the
// net half would have looked at the rest.
func (h *hostileHalf) meet(s served) *meeting {
	h.t.Helper()
	m := &meeting{half: h, session: s, key: h.key, ct2: make([]byte, 180), enc: make([]byte, 1120)}
	msg1 := make([]byte, channel.Msg1Size)
	for _, b := range [][]byte{m.nonce[:], m.ct2, m.enc, msg1} {
		if _, err := rand.Read(b); err != nil {
			h.t.Fatal(err)
		}
	}
	commit := wire.Hash("commit", m.nonce[:])
	copy(msg1[len(msg1)-64:], commit[:])
	encR := make([]byte, 32)
	answer, err := h.Answer(h.ctx, s.RID, msg1, encR, m.enc)
	if err != nil {
		h.t.Fatal(err)
	}
	m.id = answer.ConnID
	m.th1b = channel.NewTranscript(s.Mode, s.HandleHash, s.Recipient, s.RID).WithMsg1(msg1).WithProof(encR)
	return m
}

func (m *meeting) th2() [32]byte { return m.th1b.WithMsg2(m.enc, m.ct2).TH2() }

// finished is FINISHED as the holder of the key signs it.
func (m *meeting) finished(key ed25519.PrivateKey) []byte {
	th2 := m.th2()
	body := append(bytes.Clone(m.nonce[:]), key.Public().(ed25519.PublicKey)...)
	body = append(body, m.replaces[:]...)
	body = append(body, byte(len(m.list)))
	for _, r := range m.list {
		body = append(body, r.ID[:]...)
		body = binary.BigEndian.AppendUint64(body, r.Stdout)
		body = binary.BigEndian.AppendUint64(body, r.Stderr)
	}
	return append(body, ed25519.Sign(key, wire.LP([]byte("openscope/1 client signature"), m.session.RID[:], th2[:], body))...)
}

// attach finishes the handshake as an honest recipient's.
func (m *meeting) attach() *seamPeer {
	m.half.t.Helper()
	p := m.peer()
	m.attachTo(p)
	return p
}

// attachDeaf is attach for a recipient that acknowledges nothing.
func (m *meeting) attachDeaf() *seamPeer {
	m.half.t.Helper()
	p := m.peer()
	p.half = nil
	m.attachTo(p)
	return p
}

func (m *meeting) attachTo(p *seamPeer) {
	m.half.t.Helper()
	accepted, err := m.half.Accept(m.half.ctx, m.id, m.ct2, m.finished(m.key))
	if err != nil {
		m.half.t.Fatal(err)
	}
	m.challenge = accepted.Challenge
	if err := m.half.Attach(m.id, p, attachment{SAS: make([]byte, 32), From: "192.0.2.1:1"}); err != nil {
		m.half.t.Fatal(err)
	}
	m.half.t.Cleanup(func() { m.half.Detach(m.id, true) })
}

// takeOver joins the session again, in the place of another connection, and
// says what became of it.
func (m *meeting) takeOver(replaces connID, list ...channel.Resume) (*meeting, *seamPeer, error) {
	m.half.t.Helper()
	next := m.half.meet(m.session)
	next.replaces, next.list = replaces, list
	accepted, err := m.half.Accept(m.half.ctx, next.id, next.ct2, next.finished(next.key))
	if err != nil {
		m.half.t.Fatal(err)
	}
	next.challenge = accepted.Challenge
	p := next.peer()
	m.half.t.Cleanup(func() { m.half.Detach(next.id, true) })
	return next, p, m.half.Attach(next.id, p, attachment{SAS: make([]byte, 32)})
}

// peer is the net half's side of the connection, of an honest one.
func (m *meeting) peer() *seamPeer {
	return &seamPeer{half: m.half, id: m.id, ended: make(map[call.ID]call.Result), changed: make(chan struct{}, 1)}
}

// request is a CALL as the recipient signs it.
func (m *meeting) request(verb string, params ...call.Param) (id call.ID, body, signature []byte) {
	r := call.Request{Challenge: m.challenge, Verb: verb, Params: params}
	if _, err := rand.Read(r.ID[:]); err != nil {
		m.half.t.Fatal(err)
	}
	body = r.Append(nil)
	return r.ID, body, call.SignRequest(m.key, m.session.RID, m.th2(), body)
}

func named(name string) call.Param { return call.Param{Name: "name", Value: name} }

// refresh draws a new challenge, as a PING would.
func (m *meeting) refresh() {
	m.half.t.Helper()
	var err error
	if m.challenge, err = m.half.Challenge(m.id); err != nil {
		m.half.t.Fatal(err)
	}
}

// seamPeer is the net half's side of one connection.
type seamPeer struct {
	half  *hostileHalf  // where set, output is acknowledged as it comes
	id    connID        // there
	stuck chan struct{} // where set, Output does not return before it is closed

	mu      sync.Mutex
	away    func() error // where set, what comes of a PING
	output  uint64
	came    map[call.ID]*[2]uint64 // of each stream, with what came before
	printed []byte                 // the beginning of it
	issued  int
	last    passport.Signed
	closed  []call.Close
	ended   map[call.ID]call.Result
	ends    map[call.ID][]byte // as they came, with their signatures
	notices []call.NoticeKind
	changed chan struct{}
}

func (p *seamPeer) Output(_ context.Context, id call.ID, s call.Stream, data []byte) (int, error) {
	if p.stuck != nil {
		<-p.stuck
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.next(id)
	next[s-1] += uint64(len(data))
	if p.half != nil {
		defer p.half.Acknowledge(p.id, call.Window{ID: id, Stdout: next[0], Stderr: next[1]})
	}
	p.output += uint64(len(data))
	p.printed = append(p.printed, data[:min(len(data), max(0, 1<<16-len(p.printed)))]...)
	return len(data), nil
}

// next is how far a call has come; p.mu is held.
func (p *seamPeer) next(id call.ID) *[2]uint64 {
	if p.came == nil {
		p.came = make(map[call.ID]*[2]uint64)
	}
	if p.came[id] == nil {
		p.came[id] = new([2]uint64)
	}
	return p.came[id]
}

func (p *seamPeer) Continue(id call.ID, stdout, stderr uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.next(id) = [2]uint64{stdout, stderr}
}

func (p *seamPeer) End(id call.ID, body, signature []byte) error {
	r, err := call.ParseResult(body)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended[id] = r
	if p.ends == nil {
		p.ends = make(map[call.ID][]byte)
	}
	p.ends[id] = slices.Concat(body, signature)
	select {
	case p.changed <- struct{}{}:
	default:
	}
	return err
}

func (p *seamPeer) Notify(n call.Notice) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, n.Kind)
	return nil
}

// noticed reports whether a notice of the kind has come.
func (p *seamPeer) noticed(kind call.NoticeKind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.notices, kind)
}

func (p *seamPeer) Issue(signed passport.Signed) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.issued++
	p.last = signed
	return nil
}

func (p *seamPeer) Probe(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away == nil {
		return nil
	}
	return p.away()
}

func (p *seamPeer) Close(c call.Close) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = append(p.closed, c)
}

// passports is how many were issued.
func (p *seamPeer) passports() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.issued
}

// await is the result of a call that was taken.
func (p *seamPeer) await(t *testing.T, id call.ID) call.Result {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		p.mu.Lock()
		r, ok := p.ended[id]
		p.mu.Unlock()
		if ok {
			return r
		}
		select {
		case <-p.changed:
		case <-late.C:
			t.Fatal("the call does not end")
		}
	}
}

func (p *seamPeer) results() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ended)
}

// left counts the files that runs have left behind.
func (h *hostileHalf) left(pattern string) int {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return len(found)
}

// logged counts the log's entries of a kind, and what they stand for.
func (h *hostileHalf) logged(kind string) (entries, events int) {
	h.t.Helper()
	text, err := os.ReadFile(h.logPath())
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e struct {
			Kind  string
			Count int
		}
		if err := json.Unmarshal(line, &e); err != nil {
			h.t.Fatal(err)
		}
		if e.Kind == kind {
			entries, events = entries+1, events+max(1, e.Count)
		}
	}
	return entries, events
}

// entries is the whole log.
func (h *hostileHalf) entries() []audit.Record {
	h.t.Helper()
	text, err := os.ReadFile(h.logPath())
	if err != nil {
		h.t.Fatal(err)
	}
	var all []audit.Record
	for r, err := range audit.Read(bytes.NewReader(text)) {
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// servedOf is what the net half was told of a session.
func (h *hostileHalf) servedOf(rid wire.RendezvousID) served {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served[rid]
}

func TestANetHalfCannotFinishForTheRecipient(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	_, other := h.open("test.mark")
	owner := h.key
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		with func(m *meeting) (id connID, ct2, finished []byte)
	}{
		"a connection that was never answered": {func(m *meeting) (connID, []byte, []byte) { return connID{1}, m.ct2, m.finished(owner) }},
		"another ct2":                          {func(m *meeting) (connID, []byte, []byte) { return m.id, make([]byte, 180), m.finished(owner) }},
		"no ct2":                               {func(m *meeting) (connID, []byte, []byte) { return m.id, nil, m.finished(owner) }},
		"a key of its own":                     {func(m *meeting) (connID, []byte, []byte) { return m.id, m.ct2, m.finished(own) }},
		"its own signature under the recipient's key": {func(m *meeting) (connID, []byte, []byte) {
			f := m.finished(own)
			copy(f[32:64], owner.Public().(ed25519.PublicKey))
			return m.id, m.ct2, f
		}},
		"another nonce": {func(m *meeting) (connID, []byte, []byte) {
			m.nonce[0] ^= 1
			return m.id, m.ct2, m.finished(owner)
		}},
		"a connection to replace that was put in": {func(m *meeting) (connID, []byte, []byte) {
			f := m.finished(owner)
			f[64] = 1
			return m.id, m.ct2, f
		}},
		"the FINISHED of another handshake": {func(m *meeting) (connID, []byte, []byte) { return m.id, m.ct2, h.meet(s).finished(owner) }},
		"the FINISHED of another session":   {func(m *meeting) (connID, []byte, []byte) { return m.id, m.ct2, h.meet(other).finished(owner) }},
		"half a FINISHED":                   {func(m *meeting) (connID, []byte, []byte) { return m.id, m.ct2, m.finished(owner)[:90] }},
		"nothing":                           {func(m *meeting) (connID, []byte, []byte) { return m.id, m.ct2, nil }},
		"a FINISHED that was held back": {func(m *meeting) (connID, []byte, []byte) {
			h.clock.step(handshakeFor + time.Second)
			return m.id, m.ct2, m.finished(owner)
		}},
	} {
		m := h.meet(s)
		id, ct2, finished := c.with(m)
		if _, err := h.Accept(h.ctx, id, ct2, finished); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if err := h.Attach(id, &seamPeer{}, attachment{}); err == nil {
			t.Errorf("%s: it can be attached", name)
		}
		_, body, signature := m.request("test.mark", named("never"))
		if err := h.TakeCall(m.id, body, signature); err == nil {
			t.Errorf("%s: a call is taken", name)
		}
		if id != m.id {
			continue
		}
		if _, err := h.Accept(h.ctx, m.id, m.ct2, m.finished(owner)); err == nil {
			t.Errorf("%s: there is a second try", name)
		}
	}
	if h.left("mark.*") != 0 {
		t.Error("something ran")
	}
	if connects, _ := h.logged("connect"); connects != 0 {
		t.Errorf("%d connections in the log", connects)
	}

	m := h.meet(s)
	p := m.attach()
	if p.issued != 1 {
		t.Errorf("%d passports", p.issued)
	}
	if _, err := h.Accept(h.ctx, m.id, m.ct2, m.finished(owner)); err == nil {
		t.Error("FINISHED is accepted again")
	}
	if err := h.Attach(m.id, p, attachment{}); err == nil {
		t.Error("a connection is attached again")
	}
}

func TestANetHalfCannotMakeACall(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	_, other := h.open("test.mark")
	good, foreign, second := h.meet(s), h.meet(other), h.meet(s)
	p := good.attach()
	foreign.attach()
	second.attach()

	_, body, signature := good.request("test.mark", named("once"))
	for name, c := range map[string]struct {
		id              connID
		body, signature []byte
	}{
		"without signature":     {good.id, body, nil},
		"a signature of zeros":  {good.id, body, make([]byte, 64)},
		"another value":         {good.id, bytes.Replace(body, []byte("once"), []byte("evil"), 1), signature},
		"another verb":          {good.id, bytes.Replace(body, []byte("test.mark"), []byte("test.hold"), 1), signature},
		"another id":            {good.id, append([]byte{body[0] ^ 1}, body[1:]...), signature},
		"a challenge put in":    {good.id, append(append(bytes.Clone(body[:16]), second.challenge[:]...), body[24:]...), signature},
		"a byte more":           {good.id, append(bytes.Clone(body), 0), signature},
		"a byte less":           {good.id, body[:len(body)-1], signature},
		"on another connection": {second.id, body, signature},
		"in another session":    {foreign.id, body, signature},
		"on no connection":      {connID{9}, body, signature},
		"its own signature":     {good.id, body, call.SignRequest(ed25519.NewKeyFromSeed(make([]byte, 32)), s.RID, good.th2(), body)},
	} {
		h.clock.step(100 * time.Millisecond) // so that the rate is not why
		if err := h.TakeCall(c.id, c.body, c.signature); err == nil {
			t.Errorf("a call, %s, is taken", name)
		}
	}
	if h.left("mark.*") != 0 {
		t.Fatal("something ran")
	}

	id, body, signature := good.request("test.mark", named("once"))
	if err := h.TakeCall(good.id, body, signature); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Fatalf("the recipient's own call: %v", r.Cause)
	}
	for range 5 {
		h.clock.step(100 * time.Millisecond)
		if err := h.TakeCall(good.id, body, signature); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Denied {
			t.Errorf("the same call again: %v", r.Cause)
		}
	}
	for name, m := range map[string]func() meeting{
		"held back for 11 seconds":               func() meeting { m := *good; m.refresh(); h.clock.step(11 * time.Second); return m },
		"with a challenge of another connection": func() meeting { m := *good; second.refresh(); m.challenge = second.challenge; return m },
		"with a challenge that was made up":      func() meeting { m := *good; m.challenge = call.Challenge{1}; return m },
		"with none":                              func() meeting { m := *good; m.challenge = call.Challenge{}; return m },
	} {
		late := m()
		id, body, signature := late.request("test.mark", named("late"))
		if err := h.TakeCall(good.id, body, signature); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Stale {
			t.Errorf("a call %s: %v", name, r.Cause)
		}
	}
	h.Detach(good.id, true)
	if err := h.TakeCall(good.id, body, signature); err == nil {
		t.Error("a call is taken on a connection that is gone")
	}
	if n := h.left("mark.*"); n != 1 {
		t.Errorf("%d executions, and one was signed for", n)
	}
	if n, _ := h.logged("deny"); n != 5+4 {
		t.Errorf("%d denials in the log, want 9", n)
	}
}

func TestAHundredThousandCallsAtOnceAreTwenty(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, m, p := h.joined()
	before := h.size()
	const calls = 100_000
	broken := 0
	for i := range calls {
		// Beyond the rate it is refused before anybody looks who signed it.
		body, signature := call.Request{ID: call.ID{byte(i), byte(i >> 8), byte(i >> 16)}, Verb: "test.mark"}.Append(nil), make([]byte, 64)
		if i < 30 {
			_, body, signature = m.request("test.mark", named("flood"))
		}
		if err := h.TakeCall(m.id, body, signature); err != nil {
			broken++
		}
	}
	h.calls.Wait()
	if n := h.left("mark.*"); n > 20 || n == 0 {
		t.Errorf("%d calls ran, and 20 may", n)
	}
	// The net half was told to end the connection, and answers are no longer signed.
	if answered := p.results(); broken < calls-20-maxOverRate-2 || answered > 20+maxOverRate+1 {
		t.Errorf("%d of %d calls broke the protocol, %d were answered", broken, calls, answered)
	}
	h.Detach(m.id, true)
	if grown := h.size() - before; grown > 128<<10 {
		t.Errorf("the log has grown by %d bytes", grown)
	}
	if entries, events := h.logged("deny"); entries > 30 || events < calls-20 {
		t.Errorf("%d entries in the log for %d refusals, want all %d counted", entries, events, calls-20)
	}
}

// size is that of the log.
func (h *hostileHalf) size() int64 {
	h.t.Helper()
	info, err := os.Stat(h.logPath())
	if err != nil {
		h.t.Fatal(err)
	}
	return info.Size()
}

func TestOfTenThousandOpenCallsEightRun(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.hold")
	m := h.meet(s)
	p := m.attach()
	for sent := range openCalls {
		h.clock.step(50 * time.Millisecond) // as fast as the rate allows
		// Each END draws a challenge too, and the connection keeps the newest 64.
		until(t, 20*time.Second, "few are unanswered", func() bool { return sent-p.results() < 40 })
		m.refresh()
		_, body, signature := m.request("test.hold")
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
	}
	until(t, 20*time.Second, "all but eight have ended", func() bool { return p.results() == openCalls-8 })
	until(t, 10*time.Second, "the eight have begun", func() bool { return h.left("held.*") == 8 })
	p.mu.Lock()
	causes := make(map[call.Cause]int)
	for _, r := range p.ended {
		causes[r.Cause]++
	}
	if causes[call.Limit] != openCalls-8 {
		t.Errorf("the calls beyond eight: %v", causes)
	}
	p.mu.Unlock()
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	h.calls.Wait()
	if n := h.left("held.*"); n != 8 {
		t.Errorf("%d calls ran", n)
	}
	if _, denied := h.logged("deny"); denied != openCalls-8 {
		t.Errorf("%d denials in the log, want %d", denied, openCalls-8)
	}
}

// until polls for what cannot be waited for.
func until(t *testing.T, within time.Duration, what string, met func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

func TestASessionSends64MebibytesInAll(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.spill")
	m := h.meet(s)
	p := m.attach()
	for n, want := range []uint64{8 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20, 0} {
		id, body, signature := m.request("test.spill")
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Limit || r.Stdout.Bytes != want {
			t.Errorf("call %d: %v after %d bytes, want %d", n, r.Cause, r.Stdout.Bytes, want)
		}
	}
	if p.output != 64<<20 {
		t.Errorf("%d bytes were sent", p.output)
	}
}

func TestANetHalfThatTakesNothingCannotKeepACallAlive(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.spill")
	m := h.meet(s)
	p := m.attach()
	p.stuck = make(chan struct{})
	free := sync.OnceFunc(func() { close(p.stuck) })
	t.Cleanup(free) // before the core waits for its calls
	_, body, signature := m.request("test.spill")
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	spilling := func() bool { return exec.Command("pgrep", "-f", "^/usr/bin/yes "+h.dir).Run() == nil }
	until(t, 10*time.Second, "the call runs", spilling)
	late := h.meet(s)
	began := time.Now()
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("revoking took %v", took)
	}
	until(t, time.Second, "the process is gone", func() bool { return !spilling() })

	_, body, signature = m.request("test.spill")
	if err := h.TakeCall(m.id, body, signature); err == nil {
		t.Error("a call is taken after the revoke")
	}
	if _, err := h.Accept(h.ctx, late.id, late.ct2, late.finished(h.key)); err != nil {
		t.Errorf("a late recipient is not told why: %v", err)
	}
	err := h.Attach(late.id, p, attachment{})
	if over, ok := errors.AsType[*endedError](err); !ok || over.Closing.Cause != call.Revoked {
		t.Errorf("a late recipient is attached: %v", err)
	}
	if n := len(p.closed); n != 1 || p.closed[0].Cause != call.Revoked {
		t.Errorf("the recipient is told %+v", p.closed)
	}
	free()
	h.calls.Wait()
	if n, _ := h.logged("call"); n != 1 {
		t.Errorf("%d calls in the log", n)
	}
}
