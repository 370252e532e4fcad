package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"openscope/wire/call"
	"openscope/wire/handle"
)

// lastWrite remembers when it was written to first and last.
type lastWrite struct {
	mu    sync.Mutex
	first chan struct{}
	at    time.Time
}

func (l *lastWrite) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() {
		close(l.first)
	}
	l.at = time.Now()
	return len(p), nil
}

// lived is one session that ended by itself: how long after its time the last
// byte came and the last process was gone. TTL counts from a moment between the
// request and the answer of share open, so neither bound is exact.
type lived struct {
	early, lastByte, lastProcess time.Duration
	untold                       bool // the reset came before CLOSE: that has 250 ms, whatever the machine does
	err                          error
}

// grows appends to the followed file until the test ends, so that there is
// always a byte to come.
func (w *world) grows() (stop func()) {
	file, err := os.OpenFile(w.path("growing"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		defer file.Close()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintln(file, "a line")
			}
		}
	}()
	return func() { close(done); <-gone }
}

// openFor opens a session, and returns when that was asked and answered.
func (w *world) openFor(ttl time.Duration, spec string) (h handle.Handle, asked, answered time.Time, err error) {
	asked = time.Now()
	answer := w.ask("share/open", map[string]any{"agent": "you", "to": "vendor-b", "specs": []string{spec}, "ttl_s": ttl.Seconds()})
	answered = time.Now()
	var opened struct{ Handle string }
	if err := json.Unmarshal(answer, &opened); err != nil {
		return h, asked, answered, err
	}
	h, err = handle.Parse(opened.Handle)
	return h, asked, answered, err
}

// live opens the n-th session and follows a file in it to its end.
func (w *world) live(n int, ttl time.Duration, turn chan struct{}) (l lived) {
	turn <- struct{}{}
	h, asked, answered, err := w.openFor(ttl, fmt.Sprintf("test.tail:n=%d", n))
	if err != nil {
		<-turn
		return lived{err: err}
	}
	s, err := w.connect(h, nil)
	if err != nil {
		<-turn
		return lived{err: err}
	}
	defer s.Close()
	out, ended := &lastWrite{first: make(chan struct{})}, make(chan call.Cause, 1)
	go func() {
		r, _ := s.Call(context.Background(), "test.tail", params("n", fmt.Sprint(n)), out, io.Discard)
		ended <- r.Cause
	}()
	select {
	case <-out.first:
	case cause := <-ended:
		<-turn
		return lived{err: fmt.Errorf("the call has ended before its first byte: %v", cause)}
	}
	pids := pidsOf(w.t, fmt.Sprintf("%s/growing-%d$", w.dir, n))
	<-turn
	time.Sleep(time.Until(asked.Add(ttl - 50*time.Millisecond)))
	for _, pid := range pids {
		if !alive(pid) {
			return lived{err: fmt.Errorf("the work was gone before the time was up")}
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids {
		for alive(pid) {
			<-tick.C
		}
	}
	gone := time.Now()
	cause := <-ended
	if cause != call.Expired && cause != call.Cut {
		return lived{err: fmt.Errorf("the call ends as %v", cause)}
	}
	return lived{early: asked.Add(ttl).Sub(gone), lastByte: out.at.Sub(answered.Add(ttl)), lastProcess: gone.Sub(answered.Add(ttl)), untold: cause == call.Cut}
}

// T1: sessions of 2, 5 and 30 seconds by the machine's own clocks, each with a
// call that runs. The last byte and the last process are gone in the second after
// the time is up, and not before.
func TestSessionsEndWithinASecondOfTheirTimeByTheMachinesClocks(t *testing.T) {
	t.Parallel()
	ttls := []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second}
	results := make([]lived, lifetimes)
	var living sync.WaitGroup
	var w *world
	turn := make(chan struct{}, 2) // a machine that does nothing but open sessions keeps no second
	for i := range lifetimes {
		if i%150 == 0 { // a daemon holds 256 sessions, ended ones too
			living.Wait()
			w = newWorld(t)
			w.learn("test.tail", `{class: read, executor: exec, argv: [/usr/bin/tail, -n, "1", -f, "`+w.dir+`/growing-{n}"], params: {n: {type: integer, min: 0, max: 999, required: true}}, timeout: 10m}`)
			defer w.grows()()
		}
		if err := os.Symlink(w.path("growing"), w.path(fmt.Sprint("growing-", i))); err != nil {
			t.Fatal(err)
		}
		mine := w
		living.Go(func() { results[i] = mine.live(i, ttls[i%len(ttls)], turn) })
	}
	living.Wait()
	var early, lastByte, lastProcess time.Duration
	untold := 0
	for i, l := range results {
		if l.untold {
			untold++
		}
		if l.err != nil {
			t.Errorf("session %d of %v: %v", i, ttls[i%len(ttls)], l.err)
			continue
		}
		early, lastByte, lastProcess = max(early, l.early), max(lastByte, l.lastByte), max(lastProcess, l.lastProcess)
	}
	t.Logf("%d sessions: earliest %v before the time, last byte %v and last process %v after it; %d were cut before they could be told", lifetimes, early, lastByte, lastProcess, untold)
	if untold > lifetimes/10 {
		t.Error("too many are not told why")
	}
	if early > 0 || lastByte > time.Second || lastProcess > time.Second {
		t.Error("not within the second after its time")
	}
}
