package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// letsNarrow has the grant allow smaller handles.
func (h *hostileHalf) letsNarrow() {
	h.edit("grants.yaml", "      to: [", "      narrow: true\n      to: [")
}

func newAgent(t *testing.T) *handle.RecipientIdentity {
	t.Helper()
	id, err := handle.NewRecipientIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// calls makes one call of the meeting's connection, and returns how it ended and
// what it printed.
func (m *meeting) calls(p *seamPeer, verb string, params ...call.Param) (call.Result, string) {
	m.half.t.Helper()
	m.half.clock.step(100 * time.Millisecond) // the rate is not what is tried
	m.refresh()
	id, body, signature := m.request(verb, params...)
	p.mu.Lock()
	before := len(p.printed)
	p.mu.Unlock()
	if err := m.half.TakeCall(m.id, body, signature); err != nil {
		m.half.t.Fatal(err)
	}
	r := p.await(m.half.t, id)
	p.mu.Lock()
	defer p.mu.Unlock()
	return r, string(p.printed[before:])
}

func narrowTo(to *handle.RecipientIdentity, specs ...string) []call.Param {
	params := []call.Param{{Name: "to", Value: to.Public().Text()}}
	for i, spec := range specs {
		params = append(params, call.Param{Name: catalog.SpecParams[i], Value: spec})
	}
	return params
}

// narrow makes a child for a new key and joins it as that key's owner.
func (h *hostileHalf) narrow(m *meeting, p *seamPeer, more call.Param, specs ...string) (child *share, of *meeting, agent *seamPeer) {
	h.t.Helper()
	to := newAgent(h.t)
	params := narrowTo(to, specs...)
	if more.Name != "" {
		params = append(params, more)
	}
	r, printed := m.calls(p, catalog.NarrowVerb, params...)
	parsed, err := handle.Parse(strings.TrimSpace(printed))
	if r.Cause != call.Exited || err != nil {
		h.t.Fatalf("narrowing ends as %v: %q, %v", r.Cause, printed, err)
	}
	if !parsed.Sealed || parsed.Text()+"\n" != printed {
		h.t.Errorf("a child's handle is %q", printed)
	}
	child, ok := h.shareOf(parsed.RID)
	if !ok {
		h.t.Fatal("there is no child")
	}
	of = h.meet(h.servedOf(parsed.RID))
	of.key = to.Ed25519()
	return child, of, of.attach()
}

func TestARecipientMakesASmallerHandleForTheirAgentAndNothingMore(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.mark:name=a|b", "test.hold")
	m := h.meet(s)
	p := m.attach()
	to := newAgent(t)

	// Refusals first: without the grant's word, and outside of the passport.
	if r, _ := m.calls(p, catalog.NarrowVerb, narrowTo(to, "test.mark:name=a")...); r.Cause != call.Denied {
		t.Errorf("without delegate.narrow: %v", r.Cause)
	}
	h.letsNarrow()
	own := call.Param{Name: "to", Value: h.owner.Public().Text()}
	spec := call.Param{Name: "verb1", Value: "test.mark:name=a"}
	key := call.Param{Name: "to", Value: to.Public().Text()}
	for what, c := range map[string]struct {
		params []call.Param
		cause  call.Cause
	}{
		"another verb of the grant":    {narrowTo(to, "test.spill"), call.Denied},
		"another value":                {narrowTo(to, "test.mark:name=c"), call.Denied},
		"one value inside, one not":    {narrowTo(to, "test.mark:name=a|c"), call.Denied},
		"a verb twice":                 {narrowTo(to, "test.hold", "test.hold"), call.Denied},
		"a reserved verb":              {narrowTo(to, "openscope.narrow"), call.Denied},
		"no verb":                      {[]call.Param{key}, call.Denied},
		"no key":                       {[]call.Param{spec}, call.Denied},
		"no key, but a word":           {[]call.Param{spec, {Name: "to", Value: "bearer"}}, call.Denied},
		"their own key":                {[]call.Param{spec, own}, call.Denied},
		"two keys":                     {[]call.Param{spec, key, own}, call.Denied},
		"a parameter nobody knows":     {[]call.Param{spec, key, {Name: "bearer", Value: "true"}}, call.Denied},
		"no time at all":               {[]call.Param{spec, key, {Name: "ttl_s", Value: "0"}}, call.Denied},
		"more time than any session":   {[]call.Param{spec, key, {Name: "ttl_s", Value: "1801"}}, call.Denied},
		"time in another way to write": {[]call.Param{spec, key, {Name: "ttl_s", Value: "+60"}}, call.Denied},
	} {
		if r, printed := m.calls(p, catalog.NarrowVerb, c.params...); r.Cause != c.cause || printed != "" {
			t.Errorf("%s: %v, %q", what, r.Cause, printed)
		}
	}
	h.clock.step(time.Minute)
	if r, _ := m.calls(p, catalog.NarrowVerb, spec, key, call.Param{Name: "ttl_s", Value: "1800"}); r.Cause != call.Limit {
		t.Errorf("longer than the parent: %v", r.Cause)
	}
	if _, known := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: catalog.NarrowVerb}, nil, nil); known == nil {
		t.Error("a reserved verb is called from inside")
	}
	if n := len(h.sessions.All()); n != 1 {
		t.Fatalf("%d sessions after refusals", n)
	}

	child, of, agent := h.narrow(m, p, call.Param{Name: "ttl_s", Value: "60"}, "test.mark:name=a")
	if r, _ := of.calls(agent, "test.mark", named("a")); r.Cause != call.Exited || h.left("mark.a.*") != 1 {
		t.Errorf("the agent's call ends as %v", r.Cause)
	}
	for what, r := range map[string]func() (call.Result, string){
		"another value": func() (call.Result, string) { return of.calls(agent, "test.mark", named("b")) },
		"another verb":  func() (call.Result, string) { return of.calls(agent, "test.hold") },
		"a grandchild": func() (call.Result, string) {
			return of.calls(agent, catalog.NarrowVerb, narrowTo(to, "test.mark:name=a")...)
		},
		"asking for all": func() (call.Result, string) { return of.calls(agent, catalog.RequestVerb, asks("test.spill")...) },
	} {
		if r, _ := r(); r.Cause != call.Denied {
			t.Errorf("%s: %v", what, r.Cause)
		}
	}
	if h.left("mark.*") != 1 {
		t.Error("a refused call of the agent's ran")
	}
	// The issuer sees who calls for whom.
	list, err := h.ListShares(h.ctx, control.ListRequest{ID: child.ID})
	if err != nil || list[0].Parent != id || list[0].Recipient != "vendor-b" || list[0].Key == h.owner.Public().Text() || list[0].Calls != 1 {
		t.Errorf("the issuer is shown %+v, %v", list, err)
	}
	entries := h.entries()
	if e := entries[len(entries)-1]; e.Parent != id || e.Session != child.ID || e.RecipientKey != fmt.Sprintf("%x", []byte(child.Claim.Key())) {
		t.Errorf("the log says %+v", e.Event)
	}
	// More than a part of its parent it never is.
	for _, req := range []control.ExtendRequest{{ID: child.ID, Specs: []string{"test.spill"}}, {ID: child.ID, TTL: 30 * time.Minute}} {
		if _, err := h.ExtendShare(h.ctx, req); err == nil {
			t.Errorf("the child was extended by %+v", req)
		}
	}
	// When the grant no longer allows agents, theirs is over with the next call.
	h.edit("grants.yaml", "narrow: true", "narrow: false")
	if r, _ := of.calls(agent, "test.mark", named("a")); r.Cause != call.Denied {
		t.Errorf("after the grant says no: %v", r.Cause)
	}
	if r, _ := m.calls(p, "test.mark", named("a")); r.Cause != call.Exited {
		t.Errorf("the parent's own call: %v", r.Cause)
	}
}

func TestAChildEndsWithItsParentHoweverThatEnds(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(h *hostileHalf, id string, agent *seamPeer){
		"revoked": func(h *hostileHalf, id string, _ *seamPeer) {
			if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: id}); err != nil {
				h.t.Error(err)
			}
		},
		"its time is up": func(h *hostileHalf, _ string, _ *seamPeer) { h.clock.step(31 * time.Minute); h.sweep() },
		"its time is less": func(h *hostileHalf, id string, agent *seamPeer) {
			if _, err := h.ExtendShare(h.ctx, control.ExtendRequest{ID: id, TTL: time.Minute}); err != nil {
				h.t.Error(err)
			}
			if n := agent.passports(); n != 2 {
				h.t.Errorf("the agent has %d passports after its parent's time was moved", n)
			}
			h.clock.step(time.Minute)
			h.sweep()
		},
		"the lockdown": func(h *hostileHalf, _ string, _ *seamPeer) {
			if _, err := h.Lockdown(h.ctx, control.LockdownRequest{On: true}); err != nil {
				h.t.Error(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHostileHalf(t)
			h.letsNarrow()
			id, s := h.open("test.hold")
			m := h.meet(s)
			p := m.attach()
			child, of, agent := h.narrow(m, p, call.Param{}, "test.hold")
			of.refresh()
			held, body, signature := of.request("test.hold")
			if err := h.TakeCall(of.id, body, signature); err != nil {
				t.Fatal(err)
			}
			until(t, 5*time.Second, "the agent's call runs", func() bool { return h.left("held.*") == 1 })
			end(h, id, agent)
			if r := agent.await(t, held); r.Cause != call.Revoked && r.Cause != call.Expired {
				t.Errorf("the agent's call ends as %v", r.Cause)
			}
			if cause, _ := child.Ended(); cause == 0 {
				t.Error("the child goes on")
			}
			agent.mu.Lock()
			defer agent.mu.Unlock()
			if len(agent.closed) != 1 {
				t.Errorf("the agent is told %v", agent.closed)
			}
		})
	}
}

func TestAChildSpendsWhatItsParentHas(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.letsNarrow()
	opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute, MaxCalls: 4})
	if err != nil {
		t.Fatal(err)
	}
	found, _ := h.sessions.ByID(opened.ID)
	m := h.meet(h.servedOf(found.RID))
	p := m.attach()
	_, of, agent := h.narrow(m, p, call.Param{}, "test.mark") // the first of the four
	for i, want := range []call.Cause{call.Exited, call.Exited, call.Exited, call.Limit} {
		who, peer := of, agent
		if i == 1 {
			who, peer = m, p
		}
		if r, _ := who.calls(peer, "test.mark", named("x")); r.Cause != want {
			t.Errorf("call %d ends as %v, want %v", i, r.Cause, want)
		}
	}
	if r, _ := m.calls(p, "test.mark", named("x")); r.Cause != call.Limit {
		t.Errorf("the parent's call after its agent spent the last: %v", r.Cause)
	}
	if ran := h.left("mark.*"); ran != 3 {
		t.Errorf("%d calls ran", ran)
	}
}

func TestThereAreFourChildrenAndEndedOnesCount(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.letsNarrow()
	_, m, p := h.joined()
	for range session.MaxChildren {
		child, _, _ := h.narrow(m, p, call.Param{}, "test.mark")
		if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: child.ID}); err != nil {
			t.Error(err)
		}
	}
	if r, printed := m.calls(p, catalog.NarrowVerb, narrowTo(newAgent(t), "test.mark")...); r.Cause != call.Limit || printed != "" {
		t.Errorf("the fifth child: %v", r.Cause)
	}
	if r, _ := m.calls(p, "test.mark", named("x")); r.Cause != call.Exited {
		t.Errorf("the parent, after its children were revoked: %v", r.Cause)
	}
}

func TestAChildThatNoRelayTakesIsNotThere(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.letsNarrow()
	_, m, p := h.joined()
	h.network = unregistering{h}
	for range session.MaxChildren + 1 { // none of them takes a place
		if r, printed := m.calls(p, catalog.NarrowVerb, narrowTo(newAgent(t), "test.mark")...); r.Cause != call.Failed || printed != "" {
			t.Errorf("a child without a relay: %v, %q", r.Cause, printed)
		}
	}
	if n := len(h.sessions.All()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	h.network = h
	h.narrow(m, p, call.Param{}, "test.mark")
}

// unregistering is a net half without a relay.
type unregistering struct{ *hostileHalf }

func (unregistering) Register(context.Context, wire.RendezvousID) ([]wire.Relay, error) {
	return nil, errors.New("no relay")
}

func asks(spec string) []call.Param {
	return []call.Param{{Name: "verb", Value: spec}, {Name: "reason", Value: "the ticket needs it"}}
}

// requesting has the recipient ask, and returns the request once it waits.
func (h *hostileHalf) requesting(m *meeting, session, spec string) (call.ID, control.WaitingCall) {
	h.t.Helper()
	m.refresh()
	id, body, signature := m.request(catalog.RequestVerb, asks(spec)...)
	before := len(h.waitingIn(session))
	if err := h.TakeCall(m.id, body, signature); err != nil {
		h.t.Fatal(err)
	}
	until(h.t, 5*time.Second, "the request waits", func() bool { return len(h.waitingIn(session)) == before+1 })
	for _, w := range h.waitingIn(session) {
		if w.Asked != nil && w.Asked.Spec == spec {
			return id, w
		}
	}
	h.t.Fatalf("%s is not asked for", spec)
	return id, control.WaitingCall{}
}

func TestTheIssuerAddsWhatIsAskedForWithinTheGrantAndTheClientHasItAtOnce(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.mark:name=a")
	m := h.meet(s)
	p := m.attach()

	// What cannot be accepted is refused at once, with nobody asked.
	h.edit("grants.yaml", "verbs: [test.mark, test.hold, test.spill]", "verbs: [test.mark, test.hold]")
	for what, params := range map[string][]call.Param{
		"outside of what may be shared": asks("test.spill"),
		"no such verb":                  asks("test.nothing"),
		"no such parameter":             asks("test.mark:service=web"),
		"no verb":                       asks("everything"),
		"in the passport already":       asks("test.mark:name=a"),
		"without a reason":              asks("test.hold")[:1],
		"a reserved verb":               asks(catalog.NarrowVerb),
	} {
		if r, _ := m.calls(p, catalog.RequestVerb, params...); r.Cause != call.Denied {
			t.Errorf("%s: %v", what, r.Cause)
		}
	}
	if w := h.waitingIn(id); len(w) != 0 {
		t.Fatalf("the issuer is asked: %+v", w)
	}

	asked, w := h.requesting(m, id, "test.mark:name=b|c")
	if a := w.Asked; a.Reason != "the ticket needs it" || len(a.Adds) != 1 || a.Adds[0] != "test.mark:name=b|c" || len(a.Has) != 1 || a.Has[0] != "test.mark:name=a" {
		t.Errorf("the issuer is shown %+v", a)
	}
	if r, _ := m.calls(p, "test.mark", named("b")); r.Cause != call.Denied {
		t.Errorf("before the answer: %v", r.Cause)
	}
	before := p.passports()
	if err := h.answer(w.Call, true); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, asked); r.Cause != call.Exited {
		t.Errorf("the accepted request ends as %v", r.Cause)
	}
	if n := p.passports(); n != before+1 {
		t.Errorf("%d passports issued by the time of END, %d before", n, before)
	}
	if r, _ := m.calls(p, "test.mark", named("b")); r.Cause != call.Exited {
		t.Errorf("what was added: %v", r.Cause)
	}
	if r, _ := m.calls(p, "test.mark", named("d")); r.Cause != call.Denied {
		t.Errorf("what was not: %v", r.Cause)
	}
	if n, _ := h.logged("extend"); n != 1 {
		t.Errorf("%d extensions in the log", n)
	}

	refused, w := h.requesting(m, id, "test.hold")
	if err := h.answer(w.Call, false); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, refused); r.Cause != call.Denied {
		t.Errorf("the refused request ends as %v", r.Cause)
	}
	if r, _ := m.calls(p, "test.hold"); r.Cause != call.Denied {
		t.Errorf("what was refused: %v", r.Cause)
	}
}

func TestARequestThatNobodyAnswersIsRefusedAndFewWait(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.cfg.ApproveWithin = 400 * time.Millisecond
	id, s := h.open("test.mark:name=a")
	m := h.meet(s)
	p := m.attach()
	var ids []call.ID
	for i := range maxRequests {
		asked, _ := h.requesting(m, id, fmt.Sprint("test.mark:name=x", i))
		ids = append(ids, asked)
	}
	if r, _ := m.calls(p, catalog.RequestVerb, asks("test.hold")...); r.Cause != call.Limit {
		t.Errorf("one request too many: %v", r.Cause)
	}
	for _, asked := range ids {
		if r := p.await(t, asked); r.Cause != call.Denied {
			t.Errorf("a request nobody answered ends as %v", r.Cause)
		}
	}
	if n := p.passports(); n != 1 {
		t.Errorf("%d passports", n)
	}
}

func TestAnAcceptedRequestIsDecidedAgainByTheGrantOfThatMoment(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.mark:name=a")
	m := h.meet(s)
	p := m.attach()
	asked, w := h.requesting(m, id, "test.hold")
	h.edit("grants.yaml", "verbs: [test.mark, test.hold, test.spill]", "verbs: [test.mark]")
	if err := h.answer(w.Call, true); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, asked); r.Cause != call.Denied || p.passports() != 1 {
		t.Errorf("a request that the grant no longer allows ends as %v", r.Cause)
	}
}

func TestWhatDoesNotFitIntoAPassportIsNeverAdded(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	id, s := h.open("test.mark:name=a")
	m := h.meet(s)
	p := m.attach()
	var values []string
	for i := range 60 {
		values = append(values, strings.Repeat("x", 60)+fmt.Sprint(i))
	}
	spec := "test.mark:name=" + strings.Join(values[:55], "|")
	for range 6 { // more than 15,000 bytes, whoever asks
		if _, err := h.ExtendShare(h.ctx, control.ExtendRequest{ID: id, Specs: []string{spec}}); err != nil {
			break
		}
	}
	found, _ := h.sessions.ByID(id)
	grant, _ := found.Granted()
	if n := len(grant.Verbs); n < 2 || n > 6 {
		t.Fatalf("%d alternatives", n)
	}
	if r, _ := m.calls(p, catalog.RequestVerb, asks("test.mark:name="+strings.Join(values[5:60], "|"))...); r.Cause != call.Denied {
		t.Errorf("a request that does not fit: %v", r.Cause)
	}
	if _, err := h.passportFor(mustShare(t, h, found.RID), h.owner.Public().Ed25519); err != nil {
		t.Errorf("nobody can connect any more: %v", err)
	}
}

func mustShare(t *testing.T, h *hostileHalf, rid wire.RendezvousID) *share {
	t.Helper()
	s, ok := h.shareOf(rid)
	if !ok {
		t.Fatal("no such session")
	}
	return s
}

// A bearer session's recipient has no agents either before the issuer has
// confirmed their words; after it, its child is for a key, as every child.
func TestABearerSessionHasChildrenOnlyOnceItsWordsAreConfirmed(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.edit("grants.yaml", "      to: [", "      narrow: true\n      bearer: true\n      to: [")
	opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", Bearer: true, Specs: []string{"test.mark"}, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	found, _ := h.sessions.ByID(opened.ID)
	m := h.meet(h.servedOf(found.RID))
	p := m.attach()
	m.refresh()
	to := newAgent(t)
	id, body, signature := m.request(catalog.NarrowVerb, narrowTo(to, "test.mark")...)
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the call has a slot", func() bool { return found.Meter.Calls() == 1 })
	if n := len(h.sessions.All()); n != 1 {
		t.Fatalf("%d sessions before the words are confirmed", n)
	}
	words := strings.Join(handle.SessionWords(make([]byte, 32)), " ")
	if err := h.ConfirmShare(h.ctx, control.ConfirmRequest{ID: opened.ID, Words: words}); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Fatalf("after the words are confirmed: %v", r.Cause)
	}
	child, of, agent := h.narrow(m, p, call.Param{}, "test.mark")
	if child.Bearer || child.Recipient.Key == "" {
		t.Error("the child is for whoever has its handle")
	}
	if r, _ := of.calls(agent, "test.mark", named("x")); r.Cause != call.Exited {
		t.Errorf("the agent's call ends as %v", r.Cause)
	}
	h.edit("grants.yaml", "bearer: true", "bearer: false")
	if r, _ := of.calls(agent, "test.mark", named("x")); r.Cause != call.Denied {
		t.Errorf("when the grant allows no bearer sessions any more: %v", r.Cause)
	}
}
