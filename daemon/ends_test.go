package daemon

import (
	"bytes"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/wire"
	"openscope/wire/call"
)

// endPeer keeps each END as it was sent, with what the log had on the disk at
// that moment.
type endPeer struct {
	*seamPeer
	half *hostileHalf

	mu   sync.Mutex
	sent map[call.ID]sentEnd
}

type sentEnd struct {
	body, signature []byte
	log             []audit.Record
}

func (p *endPeer) End(id call.ID, body, signature []byte) error {
	p.mu.Lock()
	p.sent[id] = sentEnd{bytes.Clone(body), bytes.Clone(signature), p.half.entries()}
	p.mu.Unlock()
	return p.seamPeer.End(id, body, signature)
}

// watchEnds puts an endPeer in the place of the connection's own.
func (h *hostileHalf) watchEnds(m *meeting, p *seamPeer) *endPeer {
	h.t.Helper()
	conn, ok := h.connectionOf(m.id)
	if !ok {
		h.t.Fatal("there is no such connection")
	}
	watched := &endPeer{seamPeer: p, half: h, sent: make(map[call.ID]sentEnd)}
	conn.peer = watched
	return watched
}

// What the recipient can show is what the log can show, entry for entry, and it
// was there first.
func TestTheLogHasEveryEndBeforeItIsSent(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark", "test.hold")
	m := h.meet(s)
	p := h.watchEnds(m, m.attach())
	take := func(id call.ID, body, signature []byte) call.Result {
		t.Helper()
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		return p.await(t, id)
	}
	ids := map[call.ID]call.Cause{}
	for range 3 {
		id, body, signature := m.request("test.mark", named("ran"))
		ids[id] = take(id, body, signature).Cause
	}
	id, body, signature := m.request("test.spill") // not in the passport
	ids[id] = take(id, body, signature).Cause
	id, body, signature = m.request("test.mark", call.Param{Name: "nme", Value: "x"})
	ids[id] = take(id, body, signature).Cause
	h.clock.step(11 * time.Second)
	id, body, signature = m.request("test.mark", named("late"))
	ids[id] = take(id, body, signature).Cause
	m.refresh()
	id, body, signature = m.request("test.hold")
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the call runs", func() bool { return h.left("held.*") == 1 })
	h.Cancel(m.id, id)
	ids[id] = p.await(t, id).Cause
	counted := map[call.Cause]int{}
	for id, cause := range ids {
		counted[cause]++
		p.check(t, id, cause)
	}
	if counted[call.Exited] != 3 || counted[call.Denied] != 2 || counted[call.Stale] != 1 || counted[call.Cancelled] != 1 {
		t.Errorf("the calls ended as %v", counted)
	}
}

// check holds one END to the log: the entry of the outcome has it, whole, and
// both signatures can be verified from the log alone.
func (p *endPeer) check(t *testing.T, id call.ID, cause call.Cause) {
	t.Helper()
	p.mu.Lock()
	sent := p.sent[id]
	p.mu.Unlock()
	var request, outcome audit.Record
	known := map[[32]byte]uint64{{}: 0}
	for _, r := range sent.log {
		known[r.Hash] = r.Seq
		if r.Call != id.String() {
			continue
		}
		if r.Request != nil {
			request = r
		}
		if r.End != nil {
			outcome = r
		}
	}
	if !bytes.Equal(outcome.End, sent.body) || !bytes.Equal(outcome.EndSignature, sent.signature) {
		t.Fatalf("%v: the log does not have the END when it is sent", cause)
	}
	rid, err := hex.DecodeString(outcome.RID)
	if err != nil || outcome.RID != request.RID || len(rid) != 16 || len(request.TH2) != 32 {
		t.Fatalf("%v: the entries are bound to %q, %q and %x", cause, request.RID, outcome.RID, request.TH2)
	}
	if !call.VerifyRequest(p.half.owner.Public().Ed25519, wire.RendezvousID(rid), [32]byte(request.TH2), request.Request, request.Signature) {
		t.Errorf("%v: the recipient's signature in the log is none", cause)
	}
	if !call.VerifyResult(p.half.publicKey(), wire.RendezvousID(rid), call.RequestHash(request.Request, request.Signature), outcome.End, outcome.EndSignature) {
		t.Errorf("%v: the daemon's signature in the log is none", cause)
	}
	end, err := call.ParseResult(outcome.End)
	if err != nil || end.Cause != cause || end.Cause.String() != outcome.Cause {
		t.Errorf("%v: the END in the log says %v, and the entry %q (%v)", cause, end.Cause, outcome.Cause, err)
	}
	head, ok := known[end.ChainHead]
	if intent := request.Seq; !ok || head >= outcome.Seq || request.Kind == "call" && head < intent {
		t.Errorf("%v: the END's head is that of entry %d, the intent is %d, the outcome %d", cause, head, intent, outcome.Seq)
	}
}
