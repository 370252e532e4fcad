package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// style is how a row is set off from the others, on a screen that can.
type style byte

const (
	plain style = iota
	strong
	faint
	alert // wants an answer
	bad   // refused, failed, ended
	bar   // the top and bottom line
)

// row is one line of the history: what happened, and when. Output has no time.
type row struct {
	at    time.Time
	text  string
	style style
}

// maxHistory is how many rows a watch remembers.
const maxHistory = 4000

// watched is what a watcher knows of a session. It changes by events and keys;
// how it is shown is [frame]'s business.
type watched struct {
	share   control.Share
	at      time.Time // when share was learnt, on this machine's clock
	history []row
	calls   map[string]*watchedCall // those that have begun and not ended, by id
	counted int                     // calls there have been, for their numbers

	readOnly bool
	selected string    // the waiting call that keys answer for
	chosen   time.Time // since when
	asking   bool      // whether to revoke
	notice   string    // what came of the last key
	noticed  time.Time
	scroll   int  // rows back from the newest
	lost     bool // the daemon does not answer
	over     bool
}

// watchedCall is a call that has not ended, and its unfinished lines of output.
type watchedCall struct {
	number int
	began  time.Time
	bytes  uint64
	lines  [2]unfinished // stdout, stderr
}

// unfinished is output whose newline has not come: cleaned.
type unfinished struct {
	text    bytes.Buffer
	cleaner *term.Cleaner
}

// maxUnfinished is how long a line grows before it is shown without its end.
const maxUnfinished = 1 << 10

func newWatched(readOnly bool) *watched {
	return &watched{readOnly: readOnly, calls: make(map[string]*watchedCall)}
}

// apply takes one event in, and returns the rows that it adds.
func (s *watched) apply(e control.Event, now time.Time) []row {
	var rows []row
	switch e.Kind {
	case control.EventSession:
		s.share, s.at = *e.Session, now
		s.settle(now)
		return nil
	case control.EventOutput:
		rows = s.output(e)
	default:
		if text, style := s.say(e); text != "" {
			rows = append(rows, row{e.Time, term.OneLine(text), style})
		}
		if e.Kind == control.EventWaiting {
			rows = append(rows, row{text: "   " + term.OneLine(e.Waiting.Line), style: plain})
		}
		if e.Kind == "result" || e.Kind == "deny" {
			rows = append(s.finish(e.Call), rows...)
		}
	}
	return s.add(rows...)
}

func (s *watched) add(rows ...row) []row {
	s.history = append(s.history, rows...)
	if over := len(s.history) - maxHistory; over > 0 {
		s.history = slices.Delete(s.history, 0, over)
	}
	if s.scroll > 0 { // what is looked at stays where it is
		s.scroll += len(rows)
	}
	return rows
}

// say puts an event into words; none for what the screen shows by itself.
func (s *watched) say(e control.Event) (string, style) {
	because := ""
	if e.Reason != "" {
		because = ": " + e.Reason
	}
	switch e.Kind {
	case "connect":
		return "connected from " + cmp.Or(e.From, "somewhere"), strong
	case "disconnect":
		return "disconnected" + because, faint
	case "claim":
		return "claimed: have the recipient read you the session words", alert
	case "confirm":
		if e.Decision == "allow" {
			return "the session words are confirmed", strong
		}
		return "wrong session words" + because, bad
	case "refuse":
		return fmt.Sprintf("refused %d times%s", max(e.Count, 1), because), bad
	case control.EventWaiting:
		return s.named(e) + " waits for your answer: " + e.Verb + paramsText(e.Params), alert
	case "approve":
		said, _, _ := strings.Cut(e.Reason, ": ")
		return s.named(e) + " " + said, strong
	case "call":
		s.call(e).began = e.Time // not when it began to wait for an answer
		return s.named(e) + " runs: " + e.Verb + paramsText(e.Params), strong
	case "deny":
		return s.denied(e, because), bad
	case "result":
		return s.ended(e, because)
	case "extend":
		return s.extended(e), strong
	case "revoke", "expire", "close":
		return "the session has ended: " + e.Cause + because, bad
	case "reload":
		return "the daemon has read its grants, verbs and recipients again", faint
	case control.EventMissed:
		return fmt.Sprintf("%d events were lost: they came faster than this could show them", e.Count), bad
	}
	return e.Kind + because, plain
}

// call is the running or waiting call of the event.
func (s *watched) call(e control.Event) *watchedCall {
	c := s.calls[e.Call]
	if c == nil {
		s.counted++
		c = &watchedCall{number: s.counted, began: e.Time}
		s.calls[e.Call] = c
	}
	return c
}

func (s *watched) named(e control.Event) string { return fmt.Sprintf("#%d", s.call(e).number) }

func (s *watched) denied(e control.Event, because string) string {
	if e.Call == "" { // a flood, counted
		return fmt.Sprintf("%d calls were refused%s", max(e.Count, 1), because)
	}
	if because == "" && e.Cause != "" {
		because = ": " + e.Cause
	}
	return s.named(e) + " refused: " + e.Verb + paramsText(e.Params) + because
}

func (s *watched) ended(e control.Event, because string) (string, style) {
	c := s.call(e)
	how := fmt.Sprintf("%s%s", e.Cause, because)
	if e.Cause == "exited" && e.Status != nil {
		how = fmt.Sprintf("exited with status %d%s", *e.Status, because)
	}
	text := fmt.Sprintf("%s %s, %s of output, %s", s.named(e), how, sizeText(e.StdoutBytes+e.StderrBytes), durationText(e.Time.Sub(c.began)))
	if e.Cause == "exited" && e.Status != nil && *e.Status == 0 {
		return text, strong
	}
	return text, bad
}

func (s *watched) extended(e control.Event) string {
	text := "extended " + e.Reason
	if until, err := time.Parse("until "+time.RFC3339, e.Reason); err == nil {
		text = "extended until " + clock(until)
	}
	for i, p := range e.Params {
		text += []string{", and now also ", ", "}[min(i, 1)] + strings.TrimSuffix(p.Name+":"+p.Value, ":")
	}
	return text
}

// output turns bytes into whole lines, cleaned.
func (s *watched) output(e control.Event) []row {
	c := s.call(e)
	c.bytes += uint64(len(e.Data))
	u := &c.lines[0]
	if e.Stream == "stderr" {
		u = &c.lines[1]
	}
	if u.cleaner == nil {
		u.cleaner = term.NewCleaner(&u.text)
	}
	_, _ = u.cleaner.Write(e.Data) // a buffer takes everything
	var rows []row
	for {
		line, whole := u.next()
		if line == "" && !whole {
			return rows
		}
		rows = append(rows, outputRow(c.number, e.Stream, line))
	}
}

// next takes the next line, or as much of it as is shown at once; nothing while
// it may still grow.
func (u *unfinished) next() (line string, whole bool) {
	text := u.text.Bytes()
	end := bytes.IndexByte(text, '\n')
	switch {
	case end < 0 && len(text) < maxUnfinished:
		return "", false
	case end >= 0 && end < maxUnfinished:
		u.text.Next(end + 1)
		return strings.TrimSuffix(string(text[:end]), `\x0d`), true
	}
	for end = maxUnfinished; !utf8.RuneStart(text[end-1]); end-- {
	}
	return string(u.text.Next(end - 1)), false
}

func outputRow(number int, stream, text string) row {
	if stream == "stderr" {
		return row{text: fmt.Sprintf("#%d ! %s", number, text)}
	}
	return row{text: fmt.Sprintf("#%d | %s", number, text)}
}

// finish shows the lines that a call has left unfinished, and forgets it.
func (s *watched) finish(id string) []row {
	c := s.calls[id]
	delete(s.calls, id)
	if c == nil {
		return nil
	}
	var rows []row
	for i, stream := range []string{"stdout", "stderr"} {
		u := &c.lines[i]
		if u.cleaner == nil {
			continue
		}
		_ = u.cleaner.Flush() // as above
		if u.text.Len() > 0 {
			rows = append(rows, outputRow(c.number, stream, u.text.String()))
		}
	}
	return rows
}

// note shows what came of a key.
func (s *watched) note(text string, now time.Time) { s.notice, s.noticed = text, now }

// settle keeps the selection on a call that waits.
func (s *watched) settle(now time.Time) {
	s.over = s.over || s.share.State == control.StateEnded
	if s.waiting() != nil {
		return
	}
	s.selected = ""
	if len(s.share.Waiting) > 0 {
		s.selected, s.chosen = s.share.Waiting[0].Call, now
	}
}

// waiting is the selected call.
func (s *watched) waiting() *control.WaitingCall {
	for i := range s.share.Waiting {
		if s.share.Waiting[i].Call == s.selected {
			return &s.share.Waiting[i]
		}
	}
	return nil
}

// left is the session's time from now.
func (s *watched) left(now time.Time) time.Duration {
	if s.over {
		return 0
	}
	return max(0, time.Duration(s.share.RemainingS*float64(time.Second))-now.Sub(s.at))
}

// outcomes is how the calls ended, like "3 exited, 1 cancelled".
func outcomes(share control.Share) string {
	var parts []string
	for _, cause := range slices.Sorted(maps.Keys(share.Outcomes)) {
		parts = append(parts, fmt.Sprintf("%d %s", share.Outcomes[cause], cause))
	}
	if share.Refused > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", share.Refused))
	}
	return strings.Join(parts, ", ")
}

func sizeText(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// durationText is short: 0.4s, 12s, 3m20s.
func durationText(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
