package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"openscope/daemon/internal/control"
)

var watchBegan = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// nasty is text that somebody might put where it is shown.
var nasty = []string{
	"web", "", "\x1b[2J\x1b[31m", "a\rb\x07\u202e\u2066", "漢字漢字", "e\u0301e\u0301", strings.Repeat("long ", 60), "\xff\xfe", "x\ty\nz", "\u009b31m",
}

func anyText(r *rand.Rand) string { return nasty[r.IntN(len(nasty))] + nasty[r.IntN(len(nasty))] }

// anyEvent is an event of some call among a few, as hostile as its texts.
func anyEvent(r *rand.Rand, at time.Time) control.Event {
	kinds := []string{
		"connect", "disconnect", "claim", "confirm", "refuse", "waiting", "approve", "call", "deny", "result", "extend",
		"revoke", "reload", "missed", "output", "output", "output", "session", "session", "other",
	}
	status := r.IntN(3)
	e := control.Event{
		Time: at, Kind: kinds[r.IntN(len(kinds))], Call: fmt.Sprint(r.IntN(5)), Verb: anyText(r), Cause: "exited", Status: &status,
		Reason: anyText(r), From: anyText(r), Count: r.IntN(9), Params: []control.Param{{Name: anyText(r), Value: anyText(r)}},
		Stream: []string{"stdout", "stderr"}[r.IntN(2)],
	}
	switch e.Kind {
	case "output":
		e.Data = []byte(anyText(r))
	case "waiting":
		e.Waiting = &control.WaitingCall{Call: "c-1", Line: anyText(r)}
	case "session":
		e.Session = anySession(r, at)
	}
	return e
}

func anySession(r *rand.Rand, at time.Time) *control.Share {
	s := &control.Share{
		ID: "s-aaaaa", Agent: anyText(r), Issuer: "me", Recipient: anyText(r), RemainingS: float64(r.IntN(1800)),
		State: []string{"waiting", "connected", "unconfirmed", "ended"}[r.IntN(4)], From: anyText(r), Note: anyText(r), Error: anyText(r),
		Outcomes: map[string]int{"exited": 1},
	}
	for range r.IntN(4) {
		s.Verbs = append(s.Verbs, anyText(r))
		s.Running = append(s.Running, control.RunningCall{ID: fmt.Sprint(r.IntN(5)), Verb: anyText(r), Since: at})
		s.Waiting = append(s.Waiting, control.WaitingCall{
			Call: fmt.Sprint("c-", r.IntN(5)), ID: fmt.Sprint(r.IntN(5)), Verb: anyText(r), Line: anyText(r), Since: at, WithinS: 120,
		})
	}
	return s
}

func TestNoFrameIsLargerThanItsScreenOrActsOnTheTerminal(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := []string{"\x1b[A", "\x1b[B", "\x1b[5~", "\t", "r", "a", "d", "n", "G", "?"}
	for range 60 {
		s, now := newWatched(r.IntN(4) == 0), watchBegan
		s.apply(control.Event{Kind: "session", Session: anySession(r, now)}, now)
		for range 40 {
			now = now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			s.apply(anyEvent(r, now), now)
			s.key(keys[r.IntN(len(keys))], now)
			w, h := r.IntN(210), r.IntN(55)
			rows := frame(s, now, w, h)
			if len(rows) > h {
				t.Fatalf("%d rows on a screen of %d×%d", len(rows), w, h)
			}
			for _, row := range rows {
				if width(row.text) > w {
					t.Fatalf("a row of %d columns on a screen of %d×%d: %q", width(row.text), w, h, row.text)
				}
				if strings.ContainsFunc(row.text, func(c rune) bool {
					return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == unicode.ReplacementChar
				}) {
					t.Fatalf("a terminal would act on %q", row.text)
				}
			}
		}
		if len(s.calls) > 5 {
			t.Fatalf("%d calls are remembered", len(s.calls))
		}
	}
}

func TestAWatchForgetsWhatIsLongAgo(t *testing.T) {
	s := newWatched(false)
	for i := range 3 * maxHistory {
		s.apply(control.Event{Kind: "reload", Time: watchBegan.Add(time.Duration(i))}, watchBegan)
	}
	if len(s.history) != maxHistory {
		t.Errorf("%d rows are remembered", len(s.history))
	}
}

// However the bytes were cut on their way, the rows are the same.
func TestOutputIsTheSameInWhateverPiecesItComes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var data []byte
		for range r.IntN(30) {
			data = append(data, anyText(r)...)
			if r.IntN(3) == 0 {
				data = append(data, []string{"\n", "\r\n"}[r.IntN(2)]...)
			}
		}
		whole := outputRows([][]byte{data})
		var pieces [][]byte
		for rest := data; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 40))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := outputRows(pieces); got != whole {
			t.Fatalf("in %d pieces:\n%s\nwhole:\n%s", len(pieces), got, whole)
		}
	}
}

func outputRows(pieces [][]byte) string {
	s := newWatched(false)
	var all bytes.Buffer
	show := func(e control.Event) {
		for _, row := range s.apply(e, watchBegan) {
			fmt.Fprintln(&all, row.text)
		}
	}
	for _, p := range pieces {
		show(control.Event{Kind: "output", Call: "1", Stream: "stdout", Data: p})
	}
	show(control.Event{Kind: "result", Call: "1", Cause: "exited"})
	return all.String()
}

// waitsFor is a session in which these calls wait.
func waitsFor(names ...string) control.Event {
	share := &control.Share{ID: "s-aaaaa", State: control.StateConnected, RemainingS: 60}
	for _, name := range names {
		share.Waiting = append(share.Waiting, control.WaitingCall{Call: name, ID: name, Verb: "a.b", Line: "x", WithinS: 120})
	}
	return control.Event{Kind: control.EventSession, Session: share}
}

func TestAKeyAnswersOnlyForTheCallThatWasThere(t *testing.T) {
	s, now := newWatched(false), watchBegan
	s.apply(waitsFor("c-1", "c-2"), now)
	if i := s.key("a", now.Add(settleTime/2)); i.answer != nil {
		t.Errorf("a call that has just come up was answered: %+v", i.answer)
	}
	now = now.Add(settleTime)
	if i := s.key("a", now); i.answer == nil || i.answer.Call != "c-1" || !i.answer.Approve {
		t.Errorf("the key means %+v", i.answer)
	}
	// The answered call goes, and another takes its place under the finger.
	s.apply(waitsFor("c-2"), now)
	if i := s.key("a", now.Add(settleTime/2)); i.answer != nil {
		t.Errorf("the key was meant for the call before: %+v", i.answer)
	}
	// One that comes besides does not move the selection.
	s.apply(waitsFor("c-0", "c-2"), now)
	now = now.Add(settleTime)
	if i := s.key("d", now); i.answer == nil || i.answer.Call != "c-2" || i.answer.Approve {
		t.Errorf("the key means %+v", i.answer)
	}
	s.key("\t", now)
	if i := s.key("d", now.Add(settleTime)); i.answer == nil || i.answer.Call != "c-0" {
		t.Errorf("after tab the key means %+v", i.answer)
	}
}

func TestRevokeTakesTwoKeys(t *testing.T) {
	s := newWatched(false)
	s.apply(waitsFor(), watchBegan)
	for _, second := range []string{"n", "r", "a", "\r", "q", "\x03"} {
		s.key("r", watchBegan)
		if i := s.key(second, watchBegan); i.revoke || i.leave {
			t.Errorf("r and %q: %+v", second, i)
		}
	}
	s.key("r", watchBegan)
	if i := s.key("y", watchBegan); !i.revoke {
		t.Error("r and y do not revoke")
	}
	if i := s.key("y", watchBegan); i.revoke {
		t.Error("y alone revokes")
	}
}

func TestAReadOnlyWatchChangesNothing(t *testing.T) {
	s := newWatched(true)
	s.apply(waitsFor("c-1"), watchBegan)
	for k := range 256 {
		i := s.key(string(rune(k)), watchBegan.Add(time.Hour))
		if i.answer != nil || i.revoke {
			t.Errorf("%q: %+v", rune(k), i)
		}
	}
	if rows := frame(s, watchBegan, 80, 24); !strings.Contains(rows[23].text, "read only") || strings.Contains(rows[23].text, "revoke") {
		t.Errorf("the keys are %q", rows[23].text)
	}
}

func TestOnlyKeysAreKeys(t *testing.T) {
	for k, want := range map[string]bool{
		"\x1b[A": true, "\x1b[5~": true, "\x1bOF": true,
		"\x1b[A\x1b[A": false, "aaa": false, "\x1ba": false, "\x1b[Aa": false, "ya": false, "\x1b[200~a": false,
	} {
		if isEscape(k) != want {
			t.Errorf("%q: %v", k, !want)
		}
	}
}

func TestACountdownEnds(t *testing.T) {
	s := newWatched(false)
	s.apply(waitsFor(), watchBegan)
	for after, want := range map[time.Duration]string{0: "1:00 left", 59 * time.Second: "0:01 left", time.Hour: "0:00 left"} {
		if got := frame(s, watchBegan.Add(after), 80, 24)[0].text; !strings.HasSuffix(got, want+" ") {
			t.Errorf("after %v: %q", after, got)
		}
	}
}

func TestTextFitsWhereItIsPut(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		text := strings.ToValidUTF8(strings.ReplaceAll(anyText(r), "\t", ""), "?")
		n := r.IntN(40)
		if got := width(fit(text, n)); got != n {
			t.Fatalf("%q in %d columns takes %d", text, n, got)
		}
		joined := ""
		for _, line := range wrapped(text, n+2, 0) {
			if width(line) > n+2 {
				t.Fatalf("%q is wider than %d", line, n+2)
			}
			joined += line
		}
		if joined != text {
			t.Fatalf("wrapping %q makes %q", text, joined)
		}
	}
}
