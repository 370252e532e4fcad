package daemon

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// failingRand gives n bytes and then no more: an error at once, or a read that
// is short first.
type failingRand struct {
	short bool

	mu          sync.Mutex
	left, drawn int
}

var errNoRandomness = errors.New("no randomness")

func (r *failingRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(p), r.left)
	if n < len(p) && !r.short {
		return 0, errNoRandomness
	}
	if n == 0 {
		return 0, errNoRandomness
	}
	r.left -= n
	r.drawn += n
	return io.ReadFull(rand.Reader, p[:n])
}

func TestWithoutRandomnessNothingIsOpenedAndNobodyLetIn(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	open := func() error {
		opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
		if err == nil {
			_, err = h.RevokeShare(h.ctx, control.RevokeRequest{ID: opened.ID})
			return err
		}
		if opened.Handle != "" || opened.ID != "" {
			t.Error("there is a handle all the same")
		}
		return err
	}
	_, s := h.open("test.mark")
	answer := func() error {
		_, err := h.Answer(h.ctx, s.RID, make([]byte, 1282), make([]byte, 32), make([]byte, 1120))
		return err
	}
	call := func() error {
		r, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "x"}}}, io.Discard, io.Discard)
		if err == nil && r.Cause == "exited" {
			h.clock.step(time.Second) // the issuer's calls have a rate too
		}
		return err
	}
	for name, c := range map[string]struct {
		act    func() error
		leaves int // runs, where it goes well
	}{"opening a session": {open, 0}, "answering a handshake": {answer, 0}, "a call of the issuer's own": {call, 1}} {
		enough := &failingRand{left: 1 << 20}
		h.rand = enough
		ran := h.left("mark.*")
		if err := c.act(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := h.left("mark.*") - ran; n != c.leaves {
			t.Fatalf("%s: %d runs", name, n)
		}
		if enough.drawn == 0 {
			t.Fatalf("%s draws nothing", name)
		}
		ran = h.left("mark.*")
		for left := range enough.drawn {
			for _, short := range []bool{false, true} {
				h.rand = &failingRand{left: left, short: short}
				if err := c.act(); err == nil {
					t.Errorf("%s goes well with %d bytes of the %d it takes", name, left, enough.drawn)
				}
			}
		}
		if n := h.left("mark.*") - ran; n != 0 {
			t.Errorf("%s: %d runs without randomness", name, n)
		}
	}
	h.rand = rand.Reader
	list, err := h.ListShares(h.ctx, control.ListRequest{})
	if err != nil || len(list) != 1 {
		t.Errorf("%d sessions are left, and one was opened: %v", len(list), err)
	}
	// A connection draws its challenges later, and gives none that is half drawn.
	challenges := session.NewChallenges(h.clock, &failingRand{left: 7, short: true})
	if c, err := challenges.Issue(); err == nil || challenges.Fresh(c) {
		t.Errorf("a challenge is drawn from 7 bytes: %x, %v", c, err)
	}
}

func TestWithoutRandomnessThereIsNoIdentity(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "identity.key")
	for left := range 32 {
		if err := NewIdentityFile(path, &failingRand{left: left, short: left%2 == 1}); err == nil {
			t.Errorf("an identity of %d random bytes", left)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Fatalf("with %d random bytes a file is left", left)
		}
	}
	if err := NewIdentityFile(path, &failingRand{left: 32}); err != nil {
		t.Error(err)
	}
}

// A call that waits for the issuer is known by a name that is drawn: without one
// nobody could answer for it, and so it is refused.
func TestWithoutRandomnessNoCallWaitsToBeApproved(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	h.asks("")
	session, m, p := h.joined()
	enough := &failingRand{left: 1 << 20}
	h.rand = enough
	_, w := h.asking(m, session, "enough")
	drawn := enough.drawn
	if err := h.answer(w.Call, false); err != nil || drawn == 0 {
		t.Fatalf("%d bytes drawn, %v", drawn, err)
	}
	for left := range drawn {
		m.refresh()
		id, body, signature := m.request("test.mark", named("short"))
		h.rand = &failingRand{left: left, short: left%2 == 1}
		if err := h.TakeCall(m.id, body, signature); err != nil {
			t.Fatal(err)
		}
		if r := p.await(t, id); r.Cause != call.Denied || len(h.waitingIn(session)) != 0 {
			t.Errorf("with %d bytes of %d: %v, %d calls wait", left, drawn, r.Cause, len(h.waitingIn(session)))
		}
	}
	if n := h.left("mark.*"); n != 0 {
		t.Errorf("%d calls ran", n)
	}
}
