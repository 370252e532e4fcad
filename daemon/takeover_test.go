package daemon

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// run has the recipient call a verb on the connection.
func (m *meeting) run(verb string, params ...call.Param) call.ID {
	m.half.t.Helper()
	m.refresh()
	id, body, signature := m.request(verb, params...)
	if err := m.half.TakeCall(m.id, body, signature); err != nil {
		m.half.t.Fatal(err)
	}
	return id
}

// liveCallOf is a call that something may have to be sent of; nil where nothing.
func (h *hostileHalf) liveCallOf(m *meeting, id call.ID) *liveCall {
	s, ok := h.shareOf(m.session.RID)
	if !ok {
		return nil
	}
	h.core.mu.Lock()
	defer h.core.mu.Unlock()
	return s.live[id]
}

// at is where a call's streams have come to.
func (p *seamPeer) at(id call.ID) channel.Resume {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.next(id)
	return channel.Resume{ID: id, Stdout: next[0], Stderr: next[1]}
}

// holding has the recipient make a call that does not end, and waits until all
// that it prints has come.
func (m *meeting) holding(p *seamPeer) call.ID {
	m.half.t.Helper()
	id := m.run("test.hold")
	until(m.half.t, 30*time.Second, "it runs", func() bool { return p.at(id).Stdout > 0 })
	return id
}

// causeOf is what the log says of how a call ended; empty where nothing.
func (h *hostileHalf) causeOf(id call.ID) string {
	h.t.Helper()
	for _, e := range h.entries() {
		if e.Call == id.String() && (e.Kind == "result" || e.Kind == "deny") {
			return e.Cause
		}
	}
	return ""
}

func TestALostCallGoesOnForAMinuteAndIsCutThen(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.hold")
	m := h.meet(s)
	first := m.attach()
	id := m.holding(first)
	h.Detach(m.id, false)
	h.clock.step(detachedFor - time.Second)
	h.cutLost()
	if h.causeOf(id) != "" || h.liveCallOf(m, id).ctx.Err() != nil {
		t.Fatalf("after %v the call has ended: %s", detachedFor-time.Second, h.causeOf(id))
	}
	h.clock.step(2 * time.Second)
	h.cutLost()
	until(t, 5*time.Second, "the log says that it was cut", func() bool { return h.causeOf(id) == "cut" })
	// Who comes later is told so, as often as they ask.
	for range 2 {
		_, p, err := m.takeOver(m.id, first.at(id))
		if err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Cut {
			t.Errorf("a late client is told %v", r.Cause)
		}
		h.clock.step(time.Second)
	}
	h.cutLost()
	if h.liveCallOf(m, id) != nil {
		t.Error("something of it is still kept")
	}
}

func TestNobodysCallKeepsMoreThanAMebibyte(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.spill")
	m := h.meet(s)
	p := m.attachDeaf()
	id := m.run("test.spill")
	until(t, 30*time.Second, "a mebibyte comes", func() bool { return p.at(id).Stdout == call.MaxCredit })
	h.Detach(m.id, false)
	out := h.liveCallOf(m, id).out
	out.mu.Lock()
	kept := len(out.streams[0].kept)
	out.mu.Unlock()
	if kept != call.MaxCredit {
		t.Errorf("%d bytes are kept", kept)
	}
	// Who takes it over gets all of it, from where they say they are.
	const has = 300_000
	_, q, err := m.takeOver(m.id, channel.Resume{ID: id, Stdout: has})
	if err != nil {
		t.Fatal(err)
	}
	if r := q.await(t, id); r.Cause != call.Limit || r.Stdout.Bytes != 8<<20 || q.at(id).Stdout != 8<<20 || q.output != 8<<20-has {
		t.Errorf("it ended with %v after %d bytes, of which %d came", r.Cause, r.Stdout.Bytes, q.output)
	}
	until(t, 5*time.Second, "nothing is kept once all was acknowledged", func() bool { return h.liveCallOf(m, id) == nil })
}

func TestEveryEndOfASessionEndsTheCallsThatNobodyCarries(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(h *hostileHalf, id string) error{
		"revoke": func(h *hostileHalf, id string) error {
			_, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: id})
			return err
		},
		"lockdown": func(h *hostileHalf, _ string) error {
			_, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true})
			return err
		},
		"expiry": func(h *hostileHalf, _ string) error { h.clock.step(31 * time.Minute); h.sweep(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostileHalf(t)
			session, s := h.open("test.hold")
			m := h.meet(s)
			id := m.holding(m.attach())
			h.Detach(m.id, false)
			began := time.Now()
			if err := end(h, session); err != nil {
				t.Fatal(err)
			}
			h.calls.Wait() // for the executor, which outlives its process
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if cause := h.causeOf(id); cause != map[string]string{"revoke": "revoked", "lockdown": "revoked", "expiry": "expired"}[name] {
				t.Errorf("the log says %q", cause)
			}
		})
	}
}

func TestAListThatLiesIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.spill", "test.mark", "test.hold")
	m := h.meet(s)
	p := m.attach()
	done := m.run("test.mark", named("done"))
	p.await(t, done)
	running := m.holding(p)
	next := p.ended[done].Stdout.Bytes
	lost := h.meet(s)
	other := lost.attach()
	alone := lost.holding(other)
	h.Detach(lost.id, false)
	at, there := p.at(running), other.at(alone)
	more := func(r channel.Resume, stdout, stderr uint64) channel.Resume {
		r.Stdout, r.Stderr = r.Stdout+stdout, r.Stderr+stderr
		return r
	}
	for name, c := range map[string]struct {
		replaces connID
		list     []channel.Resume
	}{
		"a call of a connection that stands":   {connID{}, []channel.Resume{at}},
		"the same, replacing another":          {lost.id, []channel.Resume{at}},
		"more output than was sent":            {m.id, []channel.Resume{more(at, 1, 0)}},
		"more of the other stream":             {m.id, []channel.Resume{more(at, 0, 1<<63)}},
		"less than was acknowledged":           {m.id, []channel.Resume{{ID: running}}},
		"more than a call that is over wrote":  {m.id, []channel.Resume{{ID: done, Stdout: next + 1}}},
		"more than nobody's call has sent":     {m.id, []channel.Resume{more(there, 1, 0)}},
		"output of a call that never was":      {m.id, []channel.Resume{{ID: call.ID{1}, Stdout: 1}}},
		"one call twice":                       {m.id, []channel.Resume{at, at}},
		"a call that never was, twice":         {m.id, []channel.Resume{{ID: call.ID{2}}, {ID: call.ID{2}}}},
		"something true, and then a lie":       {m.id, []channel.Resume{{ID: done, Stdout: next}, there, more(at, 9, 0)}},
		"a call that never was, before a lie":  {m.id, []channel.Resume{{ID: call.ID{3}}, more(at, 9, 0)}},
		"calls that never were, one with more": {m.id, []channel.Resume{{ID: call.ID{4}}, {ID: call.ID{5}}, {ID: call.ID{6}, Stderr: 1}}},
	} {
		h.clock.step(time.Second) // so that the rate is not why
		_, q, err := m.takeOver(c.replaces, c.list...)
		if !errors.Is(err, errProtocol) {
			t.Errorf("%s is claimed: %v", name, err)
		}
		if q.results() != 0 || q.passports() != 0 || len(p.closed) != 0 {
			t.Errorf("%s: %d ends and %d passports, and %d connections displaced", name, q.results(), q.passports(), len(p.closed))
		}
	}
	if l := h.liveCallOf(m, running); l.conn == nil || l.conn.id != m.id || l.ctx.Err() != nil {
		t.Error("the running call has changed hands, or ended")
	}
	if l := h.liveCallOf(lost, alone); l.conn != nil || l.ctx.Err() != nil {
		t.Error("nobody's call has changed hands, or ended")
	}
	ledger := func(id call.ID) bool { _, seen := shareMet(h, m).Ledger.Lookup(id); return seen }
	for b := range byte(7) {
		if ledger(call.ID{b}) {
			t.Errorf("a refused list has spent the id %d", b)
		}
	}
	entries, events := h.logged("refuse")
	if entries == 0 || entries > 3 || events > 13 {
		t.Errorf("%d entries in the log for %d refusals", entries, events)
	}
	// Claimed as it should be, it goes on.
	_, _, err := m.takeOver(m.id, at, there, channel.Resume{ID: done, Stdout: next})
	if err != nil {
		t.Errorf("a list that is true: %v", err)
	}
	if len(p.closed) != 1 || p.closed[0].Cause != call.Replaced {
		t.Errorf("the connection it replaces was told %+v", p.closed)
	}
}

func shareMet(h *hostileHalf, m *meeting) *share {
	h.t.Helper()
	s, ok := h.shareOf(m.session.RID)
	if !ok {
		h.t.Fatal("there is no such session")
	}
	return s
}

func TestCallsOfAnotherSessionAreNotThereToBeTaken(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, mine := h.open("test.mark")
	_, other := h.open("test.hold")
	theirs := h.meet(other)
	theirs.attach()
	id := theirs.run("test.hold")
	m := h.meet(mine)
	m.attach()
	_, p, err := m.takeOver(theirs.id, channel.Resume{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Unseen {
		t.Errorf("it is told %v", r.Cause)
	}
	if l := h.liveCallOf(theirs, id); l == nil || l.conn == nil || l.conn.id != theirs.id {
		t.Error("the call of the other session is not where it was")
	}
}

func TestWhatNeverCameNeverRuns(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	m := h.meet(s)
	m.attach()
	// The CALL is on its way while its sender comes back by another connection.
	id, body, signature := m.request("test.mark", named("late"))
	next, p, err := m.takeOver(m.id, channel.Resume{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.TakeCall(m.id, body, signature); err == nil {
		t.Error("a record of a connection that was replaced is taken")
	}
	if r := p.await(t, id); r.Cause != call.Unseen {
		t.Errorf("it is told %v", r.Cause)
	}
	end := p.ends[id]
	at := len(end) - ed25519.SignatureSize
	if !call.VerifyResult(h.publicKey(), s.RID, [32]byte{}, end[:at], end[at:]) {
		t.Error("the answer is not signed")
	}
	// The same id by the new connection, as its holder signs it.
	body = call.Request{ID: id, Challenge: next.challenge, Verb: "test.mark", Params: []call.Param{named("late")}}.Append(nil)
	if err := h.TakeCall(next.id, body, call.SignRequest(h.key, s.RID, next.th2(), body)); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "it is denied", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.ended[id].Cause == call.Denied })
	h.calls.Wait()
	if n := h.left("mark.*"); n != 0 {
		t.Errorf("it ran %d times", n)
	}
	if cause := h.causeOf(id); cause != "unseen" {
		t.Errorf("the log says %q", cause)
	}
}

func TestAnEndIsToldAgainByteForByte(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	m := h.meet(s)
	p := m.attach()
	id := m.run("test.mark", named("once"))
	p.await(t, id)
	at := p.at(id)
	h.Detach(m.id, false)
	for range 3 {
		h.clock.step(time.Minute) // long after its output is gone
		h.cutLost()
		_, q, err := m.takeOver(m.id, at)
		if err != nil {
			t.Fatal(err)
		}
		q.await(t, id)
		if !bytes.Equal(p.ends[id], q.ends[id]) {
			t.Error("its end is told another way")
		}
		if slices.Contains(m.half.challengesOf(s), q.ended[id].Challenge) {
			t.Error("its old challenge counts for the new connection")
		}
	}
	if n := h.left("mark.*"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// challengesOf are the old challenges that a standing connection of the session
// would take.
func (h *hostileHalf) challengesOf(s served) []call.Challenge {
	var fresh []call.Challenge
	share, _ := h.shareOf(s.RID)
	for _, conn := range h.connectionsOf(share) {
		for id := range share.live {
			if how, ok := share.Ledger.Lookup(id); ok {
				if r, err := call.ParseResult(how.End); err == nil && conn.challenges.Fresh(r.Challenge) {
					fresh = append(fresh, r.Challenge)
				}
			}
		}
	}
	return fresh
}

// A client whose takeover was accepted may be lost before it hears so. It names
// the connection it knows, and gets all the same what another one has by now.
func TestOfTwoConnectionsThatTakeOverTheSameCallTheLaterHasIt(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.hold")
	a := h.meet(s)
	first := a.attach()
	id := a.holding(first)
	b, second, err := a.takeOver(a.id, first.at(id))
	if err != nil {
		t.Fatal(err)
	}
	c, third, err := a.takeOver(a.id, first.at(id))
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*seamPeer{"first": first, "second": second} {
		if len(p.closed) != 1 || p.closed[0].Cause != call.Replaced {
			t.Errorf("the %s connection was told %+v", name, p.closed)
		}
	}
	h.Cancel(b.id, id) // it is not theirs any more
	if third.results() != 0 {
		t.Error("a connection that was replaced has cancelled the call")
	}
	h.Cancel(c.id, id)
	if r := third.await(t, id); r.Cause != call.Cancelled {
		t.Errorf("the call ended with %v", r.Cause)
	}
	if n := first.results() + second.results(); n != 0 || h.left("held.*") != 1 {
		t.Errorf("%d ends came by connections that were replaced; it ran %d times", n, h.left("held.*"))
	}
}

func TestWhoLeavesDoesNotComeBackForTheirCalls(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.hold")
	m := h.meet(s)
	id := m.holding(m.attach())
	h.Detach(m.id, true)
	until(t, 2*time.Second, "it is cut", func() bool { return h.causeOf(id) == "cut" })
}

func TestACallThatNobodyCarriesCannotBeApproved(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	session, m, _ := h.joined()
	id, w := h.asking(m, session, "later")
	h.Detach(m.id, false)
	if err := h.answer(w.Call, true); err == nil {
		t.Fatal("a call is approved whose caller is away")
	}
	_, p, err := m.takeOver(m.id, channel.Resume{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "it is said again that the call waits", func() bool { return p.noticed(call.NoticePending) })
	if err := h.answer(w.Call, true); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Errorf("approved after its caller came back, it ended with %v", r.Cause)
	}
	if n := h.left("mark.*"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

func TestIdsThatNeverCameAreChargedAsCalls(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	m := h.meet(s)
	m.attach()
	spent, refused := 0, 0
	for range 12 { // thousands are: a list holds eight, and the clock stands still
		var list []channel.Resume
		for range channel.MaxResume {
			var id call.ID
			if _, err := rand.Read(id[:]); err != nil {
				t.Fatal(err)
			}
			list = append(list, channel.Resume{ID: id})
		}
		if _, _, err := m.takeOver(connID{}, list...); err != nil {
			refused++
			continue
		}
		spent += len(list)
	}
	h.calls.Wait()
	if spent > 20 || refused == 0 {
		t.Errorf("%d ids were spent within a moment, and %d lists refused", spent, refused)
	}
	if _, denied := h.logged("deny"); denied != spent {
		t.Errorf("%d denials in the log for %d ids", denied, spent)
	}
}

func TestAListOfNineIsNoList(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	for _, n := range []int{channel.MaxResume + 1, 255} {
		m := h.meet(s)
		m.list = make([]channel.Resume, n)
		if _, err := h.Accept(h.ctx, m.id, m.ct2, m.finished(m.key)); err == nil {
			t.Errorf("a list of %d is accepted", n)
		}
	}
}

func TestTheOutputOfEightEndedCallsIsKeptAndNoMore(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark")
	m := h.meet(s)
	p := m.attachDeaf()
	var ids []call.ID
	for range 20 {
		h.clock.step(time.Second)
		id := m.run("test.mark", named("kept"))
		p.await(t, id)
		ids = append(ids, id)
	}
	h.calls.Wait()
	for i, id := range ids {
		if kept := h.liveCallOf(m, id) != nil; kept != (i >= len(ids)-maxUnheard) {
			t.Errorf("call %d of %d is kept: %v", i, len(ids), kept)
		}
	}
	h.Detach(m.id, false)
	h.clock.step(detachedFor + time.Second)
	h.cutLost()
	if h.liveCallOf(m, ids[len(ids)-1]) != nil {
		t.Error("it is kept when nobody can be coming for it any more")
	}
}

// A FINISHED is good for one handshake: sent again, in the same or in another, by
// whoever has its bytes, it is nothing.
func TestAFinishedThatIsReplayedTakesNothingOver(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.hold")
	a := h.meet(s)
	first := a.attach()
	id := a.holding(first)
	b := h.meet(s)
	b.replaces, b.list = a.id, []channel.Resume{first.at(id)}
	body := b.finished(b.key)
	if _, err := h.Accept(h.ctx, b.id, b.ct2, body); err != nil {
		t.Fatal(err)
	}
	if err := h.Attach(b.id, b.peer(), attachment{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Detach(b.id, true) })
	other := h.meet(s)
	for name, at := range map[string]*meeting{"in its own handshake": b, "in another": other} {
		if _, err := h.Accept(h.ctx, at.id, at.ct2, body); err == nil {
			t.Errorf("replayed %s it is accepted", name)
		}
		if err := h.Attach(at.id, at.peer(), attachment{}); err == nil {
			t.Errorf("replayed %s it is attached", name)
		}
	}
	if l := h.liveCallOf(a, id); l == nil || l.conn == nil || l.conn.id != b.id {
		t.Error("the call has changed hands")
	}
	if _, own, err := ed25519.GenerateKey(rand.Reader); err == nil {
		if _, err := h.Accept(h.ctx, h.meet(s).id, b.ct2, b.finished(own)); err == nil {
			t.Error("another key takes it over")
		}
	}
}
