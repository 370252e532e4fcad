package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
	"openscope/wire/term"
)

// bookPeer keeps the signed END of each call.
type bookPeer struct {
	*seamPeer
	mu   sync.Mutex
	ends map[call.ID][2][]byte
}

func (p *bookPeer) End(id call.ID, body, signature []byte) error {
	p.mu.Lock()
	p.ends[id] = [2][]byte{bytes.Clone(body), bytes.Clone(signature)}
	p.mu.Unlock()
	return p.seamPeer.End(id, body, signature)
}

// book is the model: the entries that the log has to have, written from what a
// test has done and been answered, in its order.
type book struct {
	t       *testing.T
	half    *hostileHalf
	rand    *rand.Rand
	issuer  *audit.Issuer
	entries []audit.Event
	runs    int // calls that left a file
	counted map[string]int

	// the session that is open
	id      string
	meeting *meeting
	peer    *bookPeer
}

func newBook(h *hostileHalf, seed uint64) *book {
	who, err := asking(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	return &book{
		t: h.t, half: h, rand: rand.New(rand.NewPCG(seed, 5)), counted: make(map[string]int),
		issuer: &audit.Issuer{UID: who.UID, User: who.Name, Agent: "you"}, entries: []audit.Event{{Kind: "start"}},
	}
}

// ofSession is an entry about the open session, as far as all of them go.
func (b *book) ofSession(kind string) audit.Event {
	key := b.half.owner.Public().Ed25519
	return audit.Event{Kind: kind, Issuer: b.issuer, Session: b.id, Recipient: "vendor-b", RecipientKey: hex.EncodeToString(key)}
}

// begin opens a session and joins it, and enters both.
func (b *book) begin() {
	id, s := b.half.open("test.mark")
	b.id = id
	opened := b.ofSession("open")
	opened.RID, opened.Params = hex.EncodeToString(s.RID[:]), []audit.Param{{Name: "test.mark"}}
	b.meeting = b.half.meet(s)
	p := b.meeting.attach()
	conn, _ := b.half.connectionOf(b.meeting.id)
	b.peer = &bookPeer{seamPeer: p, ends: make(map[call.ID][2][]byte)}
	conn.peer = b.peer
	connected := b.ofSession("connect")
	connected.Connection, connected.From = hex.EncodeToString(b.meeting.id[:]), "192.0.2.1:1"
	b.entries = append(b.entries, opened, connected)
}

// end takes the connection away and revokes the session, and enters both.
func (b *book) end() {
	b.half.Detach(b.meeting.id, false)
	lost := b.ofSession("disconnect")
	lost.Connection, lost.Cause, lost.Reason = hex.EncodeToString(b.meeting.id[:]), "cut", "the connection was lost"
	if _, err := b.half.RevokeShare(b.half.ctx, control.RevokeRequest{ID: b.id, Reason: "next"}); err != nil {
		b.t.Fatal(err)
	}
	revoked := b.ofSession("revoke")
	revoked.Cause, revoked.Reason = "revoked", "next"
	b.entries = append(b.entries, lost, revoked)
}

// asked is one call, and what has to become of it.
type asked struct {
	verb   string
	params []call.Param
	local  bool
	late   bool // with a challenge that has had its time
	again  bool // with the id of another
	cause  string
	status int
	rule   bool   // a rule of the grants decided
	reason string // a part of it
}

// draw is a random call. What it has to come to is said here, and looked up in
// nothing of the daemon's.
func (b *book) draw() asked {
	name := fmt.Sprintf("n%d", b.rand.IntN(1000))
	good := []call.Param{named(name)}
	// Of 24, five run: a run costs a process.
	switch b.rand.IntN(24) {
	case 0, 14:
		return asked{verb: "test.spill", cause: "denied", reason: "passport"}
	case 1, 15:
		return asked{verb: "test.hold", params: good, cause: "denied", reason: "name"}
	case 2, 16:
		return asked{verb: "no." + name, params: good, cause: "denied", reason: "there is no verb"}
	case 3, 17:
		return asked{verb: "test.mark", cause: "denied", reason: "name"}
	case 4, 18:
		return asked{verb: "test.mark", params: append(good, call.Param{Name: "nam", Value: "x"}), cause: "denied", reason: "nam"}
	case 5, 19, 20:
		hostile := []string{"-x", "a\nb", "$(id)", "\x1b[2J", "a\u202eb", "\xff", "", strings.Repeat("A", 3000), `"}` + "\n" + `{"seq":1`}
		return asked{verb: "test.mark", params: []call.Param{named(hostile[b.rand.IntN(len(hostile))])}, cause: "denied", reason: "name"}
	case 6:
		return asked{verb: "test.mark", params: good, late: true, cause: "stale", reason: "too late"}
	case 7:
		return asked{verb: "test.mark", params: good, again: true, cause: "denied", reason: "used before"}
	case 8:
		return asked{verb: "test.mark", params: good, local: true, cause: "exited", rule: true}
	case 9, 21:
		return asked{verb: "test.mark", params: []call.Param{{Name: "name", Value: "-" + name}}, local: true, cause: "denied", reason: "name"}
	case 10, 22, 23:
		return asked{verb: "no." + name, local: true, cause: "denied", reason: "there is no verb of this name"}
	case 11: // no such folder
		return asked{verb: "test.mark", params: []call.Param{named("no/" + name)}, cause: "exited", status: 1, rule: true}
	}
	return asked{verb: "test.mark", params: good, cause: "exited", rule: true}
}

// make makes the call and enters it.
func (b *book) make(a asked) {
	b.half.clock.step(60 * time.Millisecond) // within the rate
	b.counted[a.cause]++
	e := audit.Event{Issuer: b.issuer, Verb: a.verb}
	for _, p := range a.params {
		e.Params = append(e.Params, audit.Param{Name: p.Name, Value: p.Value})
	}
	outcome := b.local
	if !a.local {
		outcome = b.remote
	}
	status, stdout, stderr := outcome(a, &e)
	if a.cause != "exited" {
		e.Kind, e.Decision, e.Cause, e.Reason = "deny", "deny", a.cause, a.reason
		b.entries = append(b.entries, e)
		return
	}
	if status != a.status {
		b.t.Fatalf("%s %q ended with status %d, and has to with %d", a.verb, a.params, status, a.status)
	}
	if status == 0 {
		b.runs++
	}
	intent, result := e, e
	intent.Kind, intent.Decision, intent.End, intent.EndSignature = "call", "allow", nil, nil
	result.Kind, result.Cause, result.Status, result.Stdout, result.Stderr = "result", a.cause, &status, stdout, stderr
	result.Params, result.Request, result.Signature, result.TH2 = nil, nil, nil, nil
	b.entries = append(b.entries, intent, result)
}

// remote makes the call as the recipient.
func (b *book) remote(a asked, e *audit.Event) (status int, stdout, stderr *audit.Digest) {
	m := b.meeting
	if a.late {
		b.half.clock.step(11 * time.Second)
	} else {
		m.refresh()
	}
	id, body, signature := m.request(a.verb, a.params...)
	if a.again {
		if err := b.half.TakeCall(m.id, body, signature); err != nil {
			b.t.Fatal(err)
		}
		first := b.peer.await(b.t, id)
		b.half.calls.Wait()
		b.enterFirst(id, body, signature, *e, first)
		delete(b.peer.ended, id)
		b.half.clock.step(60 * time.Millisecond)
	}
	if err := b.half.TakeCall(m.id, body, signature); err != nil {
		b.t.Fatal(err)
	}
	r := b.peer.await(b.t, id)
	b.half.calls.Wait()
	if r.Cause.String() != a.cause {
		b.t.Fatalf("%s %q ended as %v, and has to as %s", a.verb, a.params, r.Cause, a.cause)
	}
	b.bind(id, body, signature, e)
	return int(r.Status), auditDigest(r.Stdout), auditDigest(r.Stderr)
}

// bind puts into an entry what makes it the recipient's.
func (b *book) bind(id call.ID, body, signature []byte, e *audit.Event) {
	verb, params, kind := e.Verb, e.Params, e.Kind
	*e = b.ofSession(kind)
	e.Verb, e.Params, e.Call = verb, params, id.String()
	th2, rid := b.meeting.th2(), b.meeting.session.RID
	e.Connection, e.RID = hex.EncodeToString(b.meeting.id[:]), hex.EncodeToString(rid[:])
	e.Request, e.Signature, e.TH2 = body, signature, th2[:]
	b.peer.mu.Lock()
	e.End, e.EndSignature = b.peer.ends[id][0], b.peer.ends[id][1]
	b.peer.mu.Unlock()
}

// enterFirst enters the call whose id another is about to use: an honest one.
func (b *book) enterFirst(id call.ID, body, signature []byte, e audit.Event, r call.Result) {
	if r.Cause != call.Exited || r.Status != 0 {
		b.t.Fatalf("the first call ended as %v, status %d", r.Cause, r.Status)
	}
	b.runs++
	b.bind(id, body, signature, &e)
	status := 0
	intent, result := e, e
	intent.Kind, intent.Decision, intent.End, intent.EndSignature = "call", "allow", nil, nil
	result.Kind, result.Cause, result.Status, result.Stdout, result.Stderr = "result", "exited", &status, auditDigest(r.Stdout), auditDigest(r.Stderr)
	result.Params, result.Request, result.Signature, result.TH2 = nil, nil, nil, nil
	b.entries = append(b.entries, intent, result)
}

// local makes the call as the issuer, on the daemon's own machine.
func (b *book) local(a asked, e *audit.Event) (status int, stdout, stderr *audit.Digest) {
	var params []control.Param
	for _, p := range a.params {
		params = append(params, control.Param(p))
	}
	var printed, complained bytes.Buffer
	r, err := b.half.Call(b.half.ctx, control.CallRequest{Agent: "you", Verb: a.verb, Params: params}, &printed, &complained)
	if err != nil && (a.cause != "denied" || term.CodeOf(err) != control.NotFound) || err == nil && r.Cause != a.cause {
		b.t.Fatalf("%s %q of the issuer's own ended as %q, %v, and has to as %s", a.verb, a.params, r.Cause, err, a.cause)
	}
	e.Call = r.Call // empty where the caller is told of no call
	return r.Status, digestOfText(printed.Bytes()), digestOfText(complained.Bytes())
}

func digestOfText(text []byte) *audit.Digest {
	sum := sha256.Sum256(text)
	return &audit.Digest{Bytes: uint64(len(text)), SHA256: hex.EncodeToString(sum[:])}
}

// hold holds the log to the model, entry for entry.
func (b *book) hold() {
	b.t.Helper()
	log := b.half.entries()
	if len(log) != len(b.entries) {
		b.t.Errorf("the log has %d entries, the model %d", len(log), len(b.entries))
	}
	for i := range min(len(log), len(b.entries)) {
		if got, want := b.comparable(log[i].Event, b.entries[i]), b.cut(b.entries[i]); !reflect.DeepEqual(got, want) {
			b.t.Fatalf("entry %d is\n%+v\nand has to be\n%+v", i+1, got, want)
		}
		if i > 0 && log[i].Prev != log[i-1].Hash {
			b.t.Errorf("entry %d does not follow the one before", i+1)
		}
	}
}

// comparable is an entry of the log without what the model leaves open: which
// words and line of the grants it names, of which it asks for a part, and the
// ids that nobody was told.
func (b *book) comparable(got, want audit.Event) audit.Event {
	if want.Kind == "deny" && want.Reason != "" && strings.Contains(got.Reason, want.Reason) {
		got.Reason = want.Reason
	}
	if allowed := want.Kind == "call"; allowed == strings.HasPrefix(filepath.Base(got.Rule), "grants.yaml:") {
		got.Rule = ""
	}
	if want.Call == "" && len(got.Call) == 2*len(call.ID{}) {
		got.Call = ""
	}
	return got
}

// cut is the model's entry as a log keeps it: a value that is too long, or that
// is not text, by its beginning, its length and its hash.
func (b *book) cut(e audit.Event) audit.Event {
	e.Params = slices.Clone(e.Params)
	for i, p := range e.Params {
		valid := strings.ToValidUTF8(p.Value, "\ufffd")
		if valid == p.Value && len(p.Value) <= 1024 {
			continue
		}
		e.Params[i].Value, e.Params[i].Length = valid[:min(1024, len(valid))], len(p.Value)
		e.Params[i].SHA256 = digestOfText([]byte(p.Value)).SHA256
	}
	return e
}

// A5: so many random calls, allowed and denied, the recipient's and the
// issuer's own, over several sessions. The log has what the model has, in its
// order, and nothing else.
func TestTheLogOfRandomCallsIsTheModels(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := newBook(h, seed)
	for n := range modelCalls {
		if n%200 == 0 {
			if n > 0 {
				b.end()
			}
			b.begin()
		}
		a := b.draw()
		for (a.cause == "exited" || a.again) && b.rand.IntN(modelRunsOneIn) > 0 {
			a = b.draw()
		}
		b.make(a)
	}
	b.end()
	b.hold()
	if n := h.left("mark.*"); n != b.runs {
		t.Errorf("%d calls have run, and %d may", n, b.runs)
	}
	if b.counted["denied"] == 0 || b.counted["stale"] == 0 || b.runs == 0 {
		t.Errorf("the calls were %v, %d of them ran", b.counted, b.runs)
	}
	t.Logf("%d calls (%v), %d runs, %d entries", modelCalls, b.counted, b.runs, len(b.entries))
}

// What is refused for the rate alone is counted, of calls from inside too.
func TestCallsFromInsideOverTheRateAreCounted(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	limited, calls := 0, 500
	for range calls {
		_, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "no.such"}, new(bytes.Buffer), new(bytes.Buffer))
		switch term.CodeOf(err) {
		case control.Limited:
			limited++
		case control.NotFound:
		default:
			t.Fatal(err)
		}
	}
	h.clock.step(2 * time.Second)
	if err := h.refuseLocalOverRate(session.ErrRate); term.CodeOf(err) != control.Limited { // one more makes the rest due
		t.Fatal(err)
	}
	entries, events := h.logged("deny")
	if limited == 0 || limited == calls || events != calls+1 || entries != calls-limited+2 {
		t.Errorf("%d of %d were limited; the log has %d entries for %d refusals", limited, calls, entries, events)
	}
}
