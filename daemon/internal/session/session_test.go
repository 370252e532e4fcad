package session

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"testing"
	"time"

	"openscope/wire/call"
)

// handClock is two clocks set by hand.
type handClock struct {
	wall time.Time
	boot time.Duration
}

func newHandClock() *handClock {
	return &handClock{wall: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), boot: time.Hour}
}

func (c *handClock) Wall() time.Time     { return c.wall }
func (c *handClock) Boot() time.Duration { return c.boot }

func (c *handClock) step(wall, boot time.Duration) {
	c.wall = c.wall.Add(wall)
	c.boot += boot
}

func TestALifetimeEndsOnWhicheverClockIsFirst(t *testing.T) {
	for _, c := range []struct {
		name       string
		wall, boot time.Duration
		over       bool
	}{
		{"nothing has passed", 0, 0, false},
		{"a moment before", 5*time.Minute - 1, 5*time.Minute - 1, false},
		{"both have passed", 5 * time.Minute, 5 * time.Minute, true},
		{"only the boot clock: the wall clock was set back a year", -365 * 24 * time.Hour, 5 * time.Minute, true},
		{"only the wall clock: it was set forward an hour", time.Hour, time.Second, true},
		{"a suspend of forty minutes", 40 * time.Minute, 40 * time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := newHandClock()
			l, err := NewLifetime(clock, 5*time.Minute, HardCap)
			if err != nil {
				t.Fatal(err)
			}
			clock.step(c.wall, c.boot)
			if over := l.Remaining() == 0; over != c.over {
				t.Errorf("over: %v, want %v", over, c.over)
			}
		})
	}
}

func TestALifetimeIsRefusedNotReplaced(t *testing.T) {
	for _, ttl := range []time.Duration{0, -time.Second, HardCap + 1, time.Hour} {
		if _, err := NewLifetime(newHandClock(), ttl, HardCap); err == nil {
			t.Errorf("%v was taken", ttl)
		}
	}
	if _, err := NewLifetime(newHandClock(), 20*time.Minute, 10*time.Minute); err == nil {
		t.Error("a lower cap was passed")
	}
	if _, err := NewLifetime(newHandClock(), 31*time.Minute, time.Hour); err == nil {
		t.Error("a higher cap was believed")
	}
}

// The model is two numbers; 10,000 sequences of extensions and clock steps must
// agree with it, and none may ever live past the cap.
func TestNoSequenceOfExtensionsPassesTheCap(t *testing.T) {
	random := mrand.New(mrand.NewPCG(1, 2))
	for range 10_000 {
		clock := newHandClock()
		opened := clock.boot
		ttl := time.Duration(1+random.Int64N(1800)) * time.Second
		l, err := NewLifetime(clock, ttl, HardCap)
		if err != nil {
			t.Fatal(err)
		}
		deadline := opened + ttl
		for range 12 {
			step := time.Duration(random.Int64N(400)) * time.Second
			clock.step(step*time.Duration(random.IntN(2)), step) // the wall clock may stand still
			extra := time.Duration(random.Int64N(2200)-100) * time.Second
			want := extra > 0 && clock.boot < deadline && clock.boot+extra <= opened+HardCap
			if err := l.Extend(extra); (err == nil) != want {
				t.Fatalf("at %v extending by %v: %v, want ok=%v", clock.boot-opened, extra, err, want)
			}
			if want {
				deadline = clock.boot + extra
			}
			if live := l.Remaining() > 0; live != (clock.boot < deadline) {
				t.Fatalf("at %v: live %v, the model says %v", clock.boot-opened, live, !live)
			}
			if clock.boot-opened >= HardCap && l.Remaining() > 0 {
				t.Fatalf("alive %v after opening", clock.boot-opened)
			}
		}
	}
}

func TestExtendingTooFarNamesTheLongestPossible(t *testing.T) {
	clock := newHandClock()
	l, err := NewLifetime(clock, 10*time.Minute, HardCap)
	if err != nil {
		t.Fatal(err)
	}
	clock.step(9*time.Minute, 9*time.Minute)
	tooLong, ok := errors.AsType[*TooLongError](l.Extend(HardCap))
	if !ok || tooLong.Longest != 21*time.Minute {
		t.Fatalf("got %+v, want the longest to be 21m", tooLong)
	}
	if err := l.Extend(tooLong.Longest); err != nil {
		t.Errorf("the longest possible is refused: %v", err)
	}
	clock.step(HardCap, HardCap)
	if err := l.Extend(time.Second); !errors.Is(err, ErrOver) {
		t.Errorf("back to life: %v", err)
	}
}

func TestAChallengeAdmitsForTenSecondsOfBootTime(t *testing.T) {
	clock := newHandClock()
	c := NewChallenges(clock, rand.Reader)
	challenge, err := c.Issue()
	if err != nil {
		t.Fatal(err)
	}
	clock.step(-time.Hour, FreshFor)
	if !c.Fresh(challenge) {
		t.Error("not fresh at ten seconds")
	}
	clock.step(0, 1)
	if c.Fresh(challenge) {
		t.Error("fresh after ten seconds")
	}
	if c.Fresh(call.Challenge{}) {
		t.Error("the zero challenge, never issued, is fresh")
	}
}

func TestOnlyTheNewestChallengesAreKept(t *testing.T) {
	c := NewChallenges(newHandClock(), rand.Reader)
	first, err := c.Issue()
	if err != nil {
		t.Fatal(err)
	}
	for range keptChallenges {
		if _, err := c.Issue(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Fresh(first) {
		t.Errorf("the challenge before the last %d is still known", keptChallenges)
	}
}

func TestRandomnessThatFailsIssuesNoChallenge(t *testing.T) {
	if _, err := NewChallenges(newHandClock(), bytes.NewReader([]byte{1, 2})).Issue(); err == nil {
		t.Error("a challenge of two random bytes was issued")
	}
}

func TestACallIDRunsOnce(t *testing.T) {
	l := NewLedger()
	id := call.ID{1}
	if !l.Begin(id) {
		t.Fatal("a new id is refused")
	}
	if l.Begin(id) {
		t.Error("a running id ran again")
	}
	if how, seen := l.Lookup(id); !seen || how.Cause != 0 {
		t.Errorf("a running id is %v, %v", how.Cause, seen)
	}
	l.End(id, Ending{Cause: call.Exited, Reason: "why"})
	if how, seen := l.Lookup(id); !seen || how.Cause != call.Exited || how.Reason != "why" {
		t.Errorf("an id that has ended is %+v, %v", how, seen)
	}
	if _, seen := l.Lookup(call.ID{2}); seen {
		t.Error("an id that never came is known")
	}
	if l.Begin(id) {
		t.Error("an id that has ended ran again")
	}
}

func TestTheMeterHoldsEveryLimit(t *testing.T) {
	clock := newHandClock()
	m := NewMeter(clock, Limits{Concurrent: 2, PerSecond: 3, Calls: 3, CallOutput: 10, Output: 15})
	for i := range 4 {
		if err := m.Arrive(); (err == nil) != (i < 3) {
			t.Errorf("arrival %d: %v", i, err)
		}
	}
	clock.step(time.Second, time.Second)
	if err := m.Arrive(); err != nil {
		t.Errorf("a second later: %v", err)
	}

	first, err := m.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(); !errors.Is(err, ErrConcurrent) {
		t.Errorf("a third at once: %v", err)
	}
	first()
	first() // giving a slot back twice must not make two
	if _, err := m.Start(); err != nil {
		t.Errorf("after one ended: %v", err)
	}
	if _, err := m.Start(); !errors.Is(err, ErrConcurrent) {
		t.Errorf("a slot was given back twice: %v", err)
	}

	if got := m.Output(10) + m.Output(10); got != 15 {
		t.Errorf("%d bytes of output let through, want 15", got)
	}
}

func TestTheNumberOfCallsRunsOut(t *testing.T) {
	m := NewMeter(newHandClock(), Limits{Concurrent: 9, PerSecond: 9, Calls: 1})
	release, err := m.Start()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := m.Start(); !errors.Is(err, ErrCalls) {
		t.Errorf("a second of one call: %v", err)
	}
}

func TestABearerSessionBelongsToTheFirstKey(t *testing.T) {
	c := NewBearerClaim(false)
	mine, theirs := ed25519.PublicKey(bytes.Repeat([]byte{1}, 32)), ed25519.PublicKey(bytes.Repeat([]byte{2}, 32))
	always := func([]byte) bool { return true }
	if err := c.Compare(always); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("words of nobody: %v", err)
	}
	if first, err := c.Take(mine); !first || err != nil {
		t.Fatalf("the first key: %v %v", first, err)
	}
	if first, err := c.Take(mine); first || err != nil {
		t.Errorf("the same key again: %v %v", first, err)
	}
	if _, err := c.Take(theirs); !errors.Is(err, ErrClaimedByAnother) || c.Refused() != 1 {
		t.Errorf("another key: %v, %d refused", err, c.Refused())
	}
	c.AddWords([]byte("right"))
	if err := c.Compare(func(sas []byte) bool { return string(sas) == "wrong" }); !errors.Is(err, ErrWordsDiffer) {
		t.Errorf("other words: %v", err)
	}
	if err := c.Compare(func(sas []byte) bool { return string(sas) == "right" }); err != nil || c.IsConfirmed() {
		t.Errorf("the right words: %v, confirmed by comparing alone: %v", err, c.IsConfirmed())
	}
	c.Confirm()
	c.Confirm()
	if !c.IsConfirmed() {
		t.Error("not confirmed")
	}
	if sealed := NewSealedClaim(mine); !sealed.IsConfirmed() {
		t.Error("a registered recipient's calls wait")
	} else if _, err := sealed.Take(theirs); err == nil {
		t.Error("a registered recipient's session was claimed by another key")
	}
}

func TestOnlyTheFirstEndCounts(t *testing.T) {
	clock := newHandClock()
	lifetime, err := NewLifetime(clock, time.Minute, HardCap)
	if err != nil {
		t.Fatal(err)
	}
	s := New(clock, Config{ID: "s-1", Lifetime: lifetime, Claim: NewBearerClaim(true), Limits: DefaultLimits()})
	if s.Live() != nil {
		t.Fatal("not live")
	}
	if !s.End(call.Revoked, "enough", clock.wall) || s.End(call.Expired, "", clock.wall) {
		t.Error("the second end counted")
	}
	if cause, reason := s.Ended(); cause != call.Revoked || reason != "enough" {
		t.Errorf("ended as %v %q", cause, reason)
	}
	if s.Live() == nil {
		t.Error("live after its end")
	}
}
