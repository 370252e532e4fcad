package daemon

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
	"openscope/wire/term"
)

// bentClock is the bubble's clock with what was added to each: timers follow
// the bubble alone, as those of a machine stand still while it sleeps.
type bentClock struct {
	began      time.Time
	wall, boot atomic.Int64
}

func (c *bentClock) Wall() time.Time { return time.Now().Add(time.Duration(c.wall.Load())) }
func (c *bentClock) Boot() time.Duration {
	return time.Hour + time.Since(c.began) + time.Duration(c.boot.Load())
}

func (c *bentClock) bend(wall, boot time.Duration) {
	c.wall.Add(int64(wall))
	c.boot.Add(int64(boot))
}

// patientExecutor runs nothing, until its context ends.
type patientExecutor struct{ began atomic.Int32 }

func (e *patientExecutor) Execute(ctx context.Context, _ executor.Job) executor.Outcome {
	e.began.Add(1)
	<-ctx.Done()
	return executor.Outcome{Status: executor.NoStatus}
}

func (e *patientExecutor) Describe(executor.Job) string { return "" }

// spell is what the model of a session's time knows: moments on the two clocks.
type spell struct {
	wall, hardWall time.Time
	boot, hardBoot time.Duration
	over           bool
}

func (s *spell) look(c session.Clock) {
	s.over = s.over || !c.Wall().Before(s.wall) || c.Boot() >= s.boot
}

// extend is the model of share extend: its exit code.
func (s *spell) extend(c session.Clock, ttl time.Duration) term.Code {
	wall, boot := c.Wall().Add(ttl), c.Boot()+ttl
	switch {
	case s.over:
		return control.Over
	case wall.After(s.hardWall) || boot > s.hardBoot:
		return control.Limited
	}
	s.wall, s.boot = wall, boot
	return 0
}

// bends are what happens to clocks, with nothing that a timer would notice.
var bends = []struct{ wall, boot time.Duration }{
	{time.Hour, 0}, {-time.Hour, 0}, {365 * 24 * time.Hour, 0}, {-365 * 24 * time.Hour, 0},
	{10 * time.Minute, 10 * time.Minute}, {40 * time.Minute, 40 * time.Minute}, // suspended
	{0, 10 * time.Minute}, {0, time.Minute}, {-time.Minute, 0}, {-time.Minute, 0}, {-time.Second, time.Second},
	{30 * time.Second, 0}, {20 * time.Second, 20 * time.Second}, {-time.Minute, 10 * time.Second}, {-time.Hour, time.Second},
	{-time.Minute, time.Minute}, {-2 * time.Minute, 0}, {0, 30 * time.Second}, {time.Second, 0},
}

// T3: whatever is done to the two clocks, the daemon's own watch ends a session,
// and what runs in it, within a tick of the first clock that says so, a call asks
// anew at once, and none lives past 30 minutes of boot time.
func TestASessionEndsByTheFirstClockThatSaysSoWhateverIsDoneToThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &bentClock{began: time.Now()}
		h := newHostileHalf(t)
		h.core.clock = clock
		patient := new(patientExecutor)
		r := *h.rules.Load()
		r.executors = map[string]executor.Executor{"exec": patient}
		h.rules.Store(&r)
		watching, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			h.watch(watching)
			close(done)
		}()
		random := rand.New(rand.NewPCG(5, 6))
		ends := 0
		for range clockSchedules {
			ends += h.schedule(clock, patient, random)
			// Forgotten: hours after its hard limit, by both clocks.
			clock.bend(3*365*24*time.Hour, 3*time.Hour)
			time.Sleep(2 * watchInterval)
			clock.wall.Store(0)
		}
		if live := len(h.sessions.All()); live > 0 {
			t.Errorf("%d sessions are never forgotten", live)
		}
		t.Logf("%d schedules, %d sessions ended within them", clockSchedules, ends)
		if ends < clockSchedules/3 || ends > clockSchedules*19/20 {
			t.Error("the schedules show little")
		}
		stop()
		<-done
	})
}

// schedule is one session under clocks that are bent twelve times. It returns 1
// for one that ended.
func (h *hostileHalf) schedule(clock *bentClock, patient *patientExecutor, random *rand.Rand) int {
	h.t.Helper()
	ttl := time.Duration(1+random.Int64N(1800)) * time.Second
	opened, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.hold"}, TTL: ttl})
	if err != nil {
		h.t.Fatal(err)
	}
	found, _ := h.sessions.ByID(opened.ID)
	m := h.meet(h.servedOf(found.RID))
	p := m.attach()
	defer h.Detach(m.id, true)
	held := h.holding(m, patient)
	model := spell{
		wall: clock.Wall().Add(ttl), boot: clock.Boot() + ttl,
		hardWall: clock.Wall().Add(session.HardCap), hardBoot: clock.Boot() + session.HardCap,
	}
	for range 12 {
		if random.IntN(3) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(3 * time.Minute))))
		} else {
			bend := bends[random.IntN(len(bends))]
			clock.bend(bend.wall, bend.boot)
		}
		model.look(clock)
		if live := found.Live() == nil; live == model.over {
			h.t.Fatalf("asked at once, it is live: %v; the model: %v", live, !model.over)
		}
		if random.IntN(4) == 0 {
			ttl := time.Duration(1+random.Int64N(1800)) * time.Second
			_, err := h.ExtendShare(h.ctx, control.ExtendRequest{ID: opened.ID, TTL: ttl})
			if got, want := term.CodeOf(err), model.extend(clock, ttl); got != want {
				h.t.Fatalf("extending by %v: %v, want code %v", ttl, err, want)
			}
		}
		time.Sleep(watchInterval + time.Millisecond)
		synctest.Wait()
		model.look(clock)
		cause, _ := found.Ended()
		if (cause == call.Expired) != model.over {
			h.t.Fatalf("a tick later it has ended as %v; the model: over %v", cause, model.over)
		}
		if cause == 0 && clock.Boot() >= model.hardBoot {
			h.t.Fatal("alive at the cap of boot time")
		}
		if r, ended := p.result(held); ended != model.over || ended && r.Cause != call.Expired {
			h.t.Fatalf("the running call: ended %v as %v; the model: over %v", ended, r.Cause, model.over)
		}
		if model.over {
			return 1
		}
	}
	h.endShare(mustShare(h.t, h, found.RID), call.Revoked, "the schedule is over")
	synctest.Wait()
	return 0
}

// holding has the recipient make a call that does not end by itself.
func (h *hostileHalf) holding(m *meeting, patient *patientExecutor) call.ID {
	h.t.Helper()
	before := patient.began.Load()
	id, body, signature := m.request("test.hold")
	if err := h.TakeCall(m.id, body, signature); err != nil {
		h.t.Fatal(err)
	}
	synctest.Wait()
	if patient.began.Load() != before+1 {
		h.t.Fatal("the call does not run")
	}
	return id
}

// result is that of a call, if it has ended.
func (p *seamPeer) result(id call.ID) (call.Result, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.ended[id]
	return r, ok
}

// Z3 for children: what an agent may call is in its own passport, and allowed by
// the grant as it is; and the grant lets there be agents.
func TestAnAgentsCallRunsExactlyWhenItsPassportAndTheGrantAllowIt(t *testing.T) {
	h := newHostileHalf(t)
	me := h.me()
	verbs := h.editedCatalog()
	r, ran := editor{rand.New(rand.NewPCG(12, 13))}, new(countingExecutor)
	allowed, tightened := 0, 0
	for edits := 0; edits < childEdits; {
		g := r.wide()
		g.narrow = true
		h.live(verbs, ran, me, g)
		s := h.openEdited("app.a:p=u|v|w", "app.b")
		if s == nil {
			continue
		}
		opened := g
		m := h.meet(h.servedOf(s.RID))
		p := m.attach()
		child, _, _ := h.narrow(m, p, call.Param{}, "app.a:p=u|w")
		for range 250 {
			g = r.edit(g)
			g.narrow = r.IntN(5) > 0
			h.live(verbs, ran, me, g)
			edits++
			verb, values := editedNames[r.IntN(3)], map[string]string{"p": editedValues[r.IntN(4)], "q": editedValues[r.IntN(4)]}
			inPassport := verb == "app.a" && slices.Contains([]string{"u", "w"}, values["p"]) && anyMatches(opened.allow, verb, values)
			want := inPassport && g.narrow && g.allows(verb, values)
			if got := h.try(child, verb, values, ran); got != want {
				t.Fatalf("edit %d: %s %v ran: %v; in the passport %v\n%s", edits, verb, values, got, inPassport, g.yaml("me"))
			}
			if want {
				allowed++
			} else if inPassport {
				tightened++
			}
		}
		h.endShare(s, call.Revoked, "the test is done with it")
	}
	t.Logf("%d edits: %d calls ran, %d were in the passport and not allowed any more", childEdits, allowed, tightened)
	if allowed < childEdits/50 || tightened < childEdits/50 {
		t.Error("too few of one kind: the test shows little")
	}
}
