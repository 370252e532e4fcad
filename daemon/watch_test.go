package daemon

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/wire/call"
	"openscope/wire/term"
)

// seen is what a watcher has been told.
type seen struct {
	mu     sync.Mutex
	events []control.Event
	done   chan error
	hold   chan struct{} // where set, the watcher reads nothing before it is closed
}

// watches watches a session until it is over or the test ends.
func (h *hostileHalf) watches(session string, hold chan struct{}) *seen {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.ctx)
	w := &seen{done: make(chan error, 1), hold: hold}
	go func() {
		w.done <- h.Watch(ctx, control.WatchRequest{ID: session}, func(e control.Event) error {
			w.mu.Lock()
			w.events = append(w.events, e)
			first := len(w.events) == 1
			w.mu.Unlock()
			if w.hold != nil && !first {
				<-w.hold
			}
			return nil
		})
	}()
	h.t.Cleanup(func() { stop(); <-w.done })
	until(h.t, 5*time.Second, "the watch has begun", func() bool { return len(w.all()) > 0 })
	return w
}

func (w *seen) all() []control.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// kinds are the kinds of the events, without the snapshots between them.
func (w *seen) kinds() string {
	var all []string
	for _, e := range w.all() {
		if e.Kind != control.EventSession {
			all = append(all, e.Kind)
		}
	}
	return strings.Join(all, " ")
}

// ended waits for the watch to return by itself.
func (w *seen) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.done:
		w.done <- err
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the watch goes on")
		return nil
	}
}

func TestAWatcherSeesACallFromItsFirstWordToItsLast(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	session, s := h.open("test.mark")
	w := h.watches(session, nil)
	if now := w.all()[0].Session; now == nil || now.ID != session || now.State != control.StateWaiting {
		t.Fatalf("the first event is %+v", w.all()[0])
	}
	m := h.meet(s)
	p := m.attach()
	id, waiting := h.asking(m, session, "first")
	began := time.Now()
	until(t, 5*time.Second, "the waiting call is shown", func() bool { return strings.Contains(w.kinds(), "waiting") })
	if late := time.Since(began); late > 300*time.Millisecond {
		t.Errorf("the waiting call was shown after %v", late)
	}
	if err := h.answer(waiting.Call, true); err != nil {
		t.Fatal(err)
	}
	p.await(t, id)
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: session, Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	if err := w.ended(t); err != nil {
		t.Fatal(err)
	}
	if got := w.kinds(); got != "connect waiting approve call output result revoke" {
		t.Errorf("the watcher saw: %s", got)
	}
	for _, e := range w.all() {
		switch e.Kind {
		case "waiting":
			if e.Waiting.Call != waiting.Call || e.Call != id.String() || !strings.Contains(e.Waiting.Line, "mktemp") || e.Waiting.WithinS != 120 {
				t.Errorf("the waiting call is %+v", e.Waiting)
			}
		case "output":
			if e.Call != id.String() || e.Stream != "stdout" || !strings.Contains(string(e.Data), "mark.first.") {
				t.Errorf("the output is %q of %s", e.Data, e.Call)
			}
		case "result":
			if e.Status == nil || *e.Status != 0 || e.StdoutBytes == 0 {
				t.Errorf("the result is %+v", e)
			}
		}
	}
	last := w.all()[len(w.all())-1]
	if last.Session == nil || last.Session.State != control.StateEnded || last.Session.Outcomes["exited"] != 1 {
		t.Errorf("the last event is %+v", last)
	}
	if err := h.Watch(h.ctx, control.WatchRequest{ID: session}, nil); term.CodeOf(err) != control.Over {
		t.Errorf("a session that is over: %v", err)
	}
}

// A stuck watcher loses events and learns how many; the calls never notice.
func TestAStuckWatcherHoldsUpNoCall(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	session, s := h.open("test.spill", "test.mark")
	hold := make(chan struct{})
	w := h.watches(session, hold)
	m := h.meet(s)
	p := m.attach()
	id, body, signature := m.request("test.spill")
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	// It writes without end, so that only its limit can end it.
	if r := p.await(t, id); r.Cause != call.Limit {
		t.Errorf("the flood ends as %v", r.Cause)
	}
	m.refresh()
	id, body, signature = m.request("test.mark", named("after"))
	began := time.Now()
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	if r := p.await(t, id); r.Cause != call.Exited {
		t.Errorf("the call beside it ends as %v", r.Cause)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	h.feed.mu.Lock()
	for watching := range h.feed.watchers {
		watching.mu.Lock()
		if watching.bytes > maxQueuedOutput || len(watching.queue) > maxQueuedEvents || watching.missed == 0 {
			t.Errorf("%d bytes in %d events wait, %d are lost", watching.bytes, len(watching.queue), watching.missed)
		}
		watching.mu.Unlock()
	}
	h.feed.mu.Unlock()
	close(hold)
	until(t, 5*time.Second, "the watcher catches up", func() bool {
		return strings.Contains(w.kinds(), "missed") && strings.Count(w.kinds(), "result") == 2
	})
}

func TestOnlyTheIssuerAndRootWatch(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	session, _ := h.open("test.mark")
	for uid, want := range map[uint32]term.Code{4711: control.NotFound, 0: term.OK} {
		ctx, stop := context.WithCancel(principal.NewContext(h.ctx, principal.Principal{UID: uid, Name: "somebody"}))
		err := h.Watch(ctx, control.WatchRequest{ID: session}, func(control.Event) error { stop(); return nil })
		if stop(); term.CodeOf(err) != want {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	if err := h.Watch(context.Background(), control.WatchRequest{ID: session}, nil); term.CodeOf(err) != control.Denied {
		t.Errorf("nobody: %v", err)
	}
	for range maxWatchersOfUser {
		h.watches(session, nil)
	}
	if err := h.Watch(h.ctx, control.WatchRequest{ID: session}, nil); term.CodeOf(err) != control.Limited {
		t.Errorf("one more than %d: %v", maxWatchersOfUser, err)
	}
	if n := h.feed.any.Load(); n != maxWatchersOfUser {
		t.Errorf("%d watchers are counted", n)
	}
}

// Without watchers nothing is copied; with one of another session nothing is
// told.
func TestAWatcherSeesItsOwnSessionOnly(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	watched, _ := h.open("test.mark")
	_, s := h.open("test.mark")
	w := h.watches(watched, nil)
	m := h.meet(s)
	p := m.attach()
	id, body, signature := m.request("test.mark", named("other"))
	if err := h.TakeCall(m.id, body, signature); err != nil {
		t.Fatal(err)
	}
	p.await(t, id)
	if err := h.reload(); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the reload is told", func() bool { return w.kinds() != "" })
	if w.kinds() != "reload" {
		t.Errorf("the watcher saw: %s", w.kinds())
	}
}

func TestATeePassesOnWhatWasSentAndNoMore(t *testing.T) {
	f := newFeed()
	w, err := f.enter("s-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.leave(w)
	half := f.tee("s-1", call.ID{}, new(handClock), func(_ context.Context, _ call.Stream, p []byte) (int, error) {
		return len(p) / 2, context.Canceled
	})
	data := []byte("abcd")
	if n, err := half(t.Context(), call.Stderr, data); n != 2 || err == nil {
		t.Fatalf("%d, %v", n, err)
	}
	copy(data, "xxxx") // the writer's own again
	events, missed := w.take()
	if len(events) != 1 || missed != 0 || !bytes.Equal(events[0].Data, []byte("ab")) || events[0].Stream != "stderr" {
		t.Errorf("%+v, %d missed", events, missed)
	}
}
