package render

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Session is the record of one session, put together.
type Session struct {
	ID, Issuer, Agent       string
	Recipient, RecipientKey string
	Note                    string
	Daemon                  string // fingerprint in words
	Opened, Ended, Made     time.Time
	End                     string // why it is over; empty while it goes on
	Shared                  []string
	Calls                   []Call
	Events                  []Event
	Connections             []Span
	// Entries is how many of the log's entries this is, Size how many it had, and
	// Root the root of their Merkle tree.
	Entries int
	Size    int64
	Root    string
}

// Span is a time in which something stood; End is zero while it does.
type Span struct {
	Start, End time.Time
	Label      string
}

// Call is one call.
type Call struct {
	Seq        uint64 // of the entry that began it
	ID, Verb   string
	Params     string
	By         string // the child session it came from; empty for the recipient's own
	Start, End time.Time
	Outcome    Outcome
	Cause      string
	Status     int
	Bytes      uint64
	Approved   string
	Rule       string
	Reason     string
}

// Outcome is the kind of end a call had, as it is coloured.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // it ran, status 0
	Failed  Outcome = "failed"  // it ran, and failed or was not let finish
	Refused Outcome = "refused" // nothing ran
	Open    Outcome = "open"    // no end is known
)

// Event is anything else that happened.
type Event struct {
	Seq   uint64
	Time  time.Time
	Kind  string
	Text  string
	Count int
}

// Took is how long the call ran.
func (c Call) Took() time.Duration { return max(0, c.End.Sub(c.Start)) }

// count is how many calls had this outcome.
func (s *Session) count(o Outcome) (n int) {
	for _, c := range s.Calls {
		if c.Outcome == o {
			n++
		}
	}
	return n
}

// Bytes is all output that was sent.
func (s *Session) Bytes() (n uint64) {
	for _, c := range s.Calls {
		n += c.Bytes
	}
	return n
}

// last is the end of what is shown.
func (s *Session) last() time.Time {
	last := s.Made
	if !s.Ended.IsZero() {
		last = s.Ended
	}
	for _, c := range s.Calls {
		if c.End.After(last) {
			last = c.End
		}
	}
	return last
}

// lead is the session in a sentence.
func (s *Session) lead() string {
	what := "Nothing was called"
	switch n := len(s.Calls); {
	case n == 1:
		what = s.Recipient + " made one call"
	case n > 1:
		what = fmt.Sprintf("%s made %d calls", s.Recipient, n)
	}
	if s.Ended.IsZero() {
		return what + " so far, in " + took(s.Made.Sub(s.Opened)) + "; the session is still open."
	}
	return what + " in " + took(s.Ended.Sub(s.Opened)) + "; the session is over."
}

// visible is text with every character that a terminal, a browser or a reader's
// eye could be led astray by written out.
func visible(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
}

func size(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// ending is how a call ended, in words.
func (c Call) ending() string {
	switch {
	case c.Outcome == Open:
		return "no end is known"
	case c.Cause == "exited":
		return fmt.Sprintf("exited, status %d", c.Status)
	}
	return c.Cause
}

// remarks is what else there is to say of a call.
func (c Call) remarks() string {
	var parts []string
	for _, p := range []struct{ before, text string }{{"", c.Reason}, {"approved by ", c.Approved}, {"by ", c.Rule}, {"through ", c.By}} {
		if p.text != "" {
			parts = append(parts, p.before+visible(p.text))
		}
	}
	return strings.Join(parts, "; ")
}
