package render

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

var opened = time.Date(2026, 11, 25, 9, 30, 0, 0, time.UTC)

func at(seconds float64) time.Time { return opened.Add(time.Duration(seconds * float64(time.Second))) }

// sample is a session with everything in it.
func sample() *Session {
	return &Session{
		ID: "s-4f2a9c1b", Issuer: "maria", Agent: "you", Recipient: "vendor-b", RecipientKey: strings.Repeat("5e", 32),
		Note: "ticket OPS-4711: 502s on web since the 09:00 deploy", Daemon: "river anchor velvet pigeon summer castle mirror lemon",
		Opened: opened, Ended: at(742), Made: at(800), End: "revoked",
		Shared:      []string{"ssh.tail_logs:service=web", "ssh.restart_service:service=web", "k8s.pods:namespace=shop"},
		Connections: []Span{{Start: at(31), End: at(410), Label: "192.0.2.7"}, {Start: at(425), End: at(742), Label: "192.0.2.7"}},
		Calls: []Call{
			{Seq: 9, ID: "01", Verb: "ssh.tail_logs", Params: "service=web lines=200", Start: at(52), End: at(53.4), Outcome: Done, Cause: "exited", Bytes: 18_400, Rule: "grants.yaml:7"},
			{Seq: 11, ID: "02", Verb: "k8s.pods", Params: "namespace=shop", Start: at(75), End: at(76), Outcome: Done, Cause: "exited", Bytes: 2_100, Rule: "grants.yaml:9"},
			{Seq: 13, ID: "03", Verb: "ssh.tail_logs", Params: "service=web follow=true", Start: at(98), End: at(398), Outcome: Done, Cause: "exited", Bytes: 410_000, Rule: "grants.yaml:7"},
			{Seq: 14, ID: "04", Verb: "ssh.tail_logs", Params: "service=db", Start: at(140), End: at(140), Outcome: Refused, Cause: "denied", Rule: "grants.yaml:7", Reason: "service is not one of web"},
			{Seq: 18, ID: "05", Verb: "ssh.restart_service", Params: "service=web", Start: at(230), End: at(248), Outcome: Done, Cause: "exited", Bytes: 64, Approved: "maria", Rule: "grants.yaml:8"},
			{Seq: 22, ID: "06", Verb: "k8s.pods", Params: "namespace=shop", Start: at(260), End: at(320), Outcome: Failed, Cause: "timeout", Bytes: 300, Reason: "the verb's time of 1m is up", By: "s-77aa12cd"},
			{Seq: 30, ID: "07", Verb: "ssh.tail_logs", Params: "service=web lines=50", Start: at(470), End: at(471), Outcome: Done, Cause: "exited", Bytes: 5_100, Rule: "grants.yaml:7"},
			{Seq: 34, ID: "08", Verb: "ssh.tail_logs", Params: "service=web follow=true", Start: at(500), End: at(742), Outcome: Failed, Cause: "revoked", Bytes: 3_120_000, Rule: "grants.yaml:7"},
			{Seq: 36, ID: "09", Verb: "ssh.restart_service", Params: "service=web", Start: at(655), End: at(655), Outcome: Refused, Cause: "denied", Reason: "not approved within 2m"},
		},
		Events: []Event{
			{Seq: 3, Time: at(0), Kind: "open", Text: "ticket OPS-4711"}, {Seq: 6, Time: at(31), Kind: "connect", Text: "192.0.2.7"},
			{Seq: 26, Time: at(410), Kind: "disconnect", Text: "cut: the connection was lost"}, {Seq: 27, Time: at(425), Kind: "connect", Text: "192.0.2.7"},
			{Seq: 32, Time: at(490), Kind: "extend", Text: "until 09:50"}, {Seq: 38, Time: at(742), Kind: "revoke", Text: "done, thanks"},
		},
		Entries: 21, Size: 38, Root: strings.Repeat("c4", 32),
	}
}

// hostile is everything that somebody could put into a field.
const hostile = "<script>alert(1)</script>\"'&\r\n| **x** `y` [l](http://evil) www.evil @all \x1b[2J\u202e\u0085\xff </svg></pre>```\n# T"

func page(t *testing.T, s *Session) string {
	t.Helper()
	before, after, err := HTML(s)
	if err != nil {
		t.Fatal(err)
	}
	return before + "BLOCK\n" + after
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	text := page(t, sample())
	for _, pattern := range []string{`<script`, `\son[a-z]+=`, `\bsrc=`, `url\(`, `@import`, `https?://`, `<link`, `<iframe`, `javascript:`} {
		if found := regexp.MustCompile(`(?i)` + pattern).FindString(text); found != "" {
			t.Errorf("there is %q in it", found)
		}
	}
	for _, href := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`^#e[0-9]+$`).MatchString(href[1]) {
			t.Errorf("it leads to %q", href[1])
		}
	}
	if !strings.Contains(text, "default-src 'none'") || !strings.Contains(text, "prefers-color-scheme: dark") {
		t.Error("it has no policy, or no dark side")
	}
	if strings.Contains(text, "ZgotmplZ") {
		t.Error("the template refused a value")
	}
}

func TestEveryCallStandsInTheTimelineAndInTheTable(t *testing.T) {
	s := sample()
	text := page(t, s)
	for _, c := range s.Calls {
		if n := strings.Count(text, fmt.Sprintf(`href="#e%d"`, c.Seq)); n != 1 {
			t.Errorf("call %s is drawn %d times", c.ID, n)
		}
		if n := strings.Count(text, fmt.Sprintf(`id="e%d"`, c.Seq)); n != 1 {
			t.Errorf("call %s is listed %d times", c.ID, n)
		}
	}
	before, _ := Markdown(s)
	for _, c := range s.Calls {
		if n := strings.Count(before, fmt.Sprintf("\n| %d |", c.Seq)); n != 1 {
			t.Errorf("call %s is listed %d times in Markdown", c.ID, n)
		}
	}
}

func fill(s *Session, text string) {
	for _, field := range []*string{&s.ID, &s.Issuer, &s.Agent, &s.Recipient, &s.RecipientKey, &s.Note, &s.End} {
		*field = text
	}
	s.Shared = []string{text}
	s.Connections[0].Label = text
	s.Calls[0] = Call{Seq: 1, Verb: text, Params: text, By: text, Start: opened, End: opened, Outcome: Failed, Cause: text, Approved: text, Rule: text, Reason: text}
	s.Events[0] = Event{Seq: 2, Time: opened, Kind: text, Text: text}
	s.Events[1].Text = text
}

// Whatever is in a field, the page has the tags, and the table the rows, that it
// would have had without it.
func TestNothingOfAFieldIsMarkup(t *testing.T) {
	tags := regexp.MustCompile(`<[a-zA-Z/!][^>]*>`)
	plain, bad := sample(), sample()
	fill(plain, "x")
	fill(bad, hostile)
	name := func(tag string) string { return regexp.MustCompile(`^</?[a-zA-Z!]+`).FindString(tag) }
	want, got := tags.FindAllString(page(t, plain), -1), tags.FindAllString(page(t, bad), -1)
	if len(want) != len(got) {
		t.Fatalf("%d tags, not %d", len(got), len(want))
	}
	for i := range want {
		if name(want[i]) != name(got[i]) {
			t.Errorf("tag %d is %s, not %s", i, got[i], want[i])
		}
	}
	wantMD, _ := Markdown(plain)
	gotMD, _ := Markdown(bad)
	if strings.Count(wantMD, "\n") != strings.Count(gotMD, "\n") || strings.Count(wantMD, "|") != strings.Count(gotMD, "|") {
		t.Errorf("the Markdown has %d lines and %d bars, not %d and %d", strings.Count(gotMD, "\n"), strings.Count(gotMD, "|"), strings.Count(wantMD, "\n"), strings.Count(wantMD, "|"))
	}
	for _, text := range []string{page(t, bad), gotMD} {
		for _, r := range text {
			if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0xfffd {
				t.Errorf("%U is in it", r)
			}
		}
	}
	for _, s := range []string{"**x**", "`y`", "[l]", "http:", "www.evil", "@all", "<script"} {
		if strings.Contains(gotMD, s) {
			t.Errorf("%q is in the Markdown", s)
		}
	}
}

// No call's label touches another call, as long as there are lanes.
func TestNothingOfTheTimelineIsDrawnOverAnother(t *testing.T) {
	for _, calls := range []int{0, 1, 9, 40, 2000} {
		s := sample()
		s.Calls = nil
		for i := range calls {
			start := float64(i*37%740) + 0.3
			c := Call{Seq: uint64(i + 1), Verb: "ssh.tail_logs", Start: at(start), End: at(start + float64(i%5)*9), Outcome: Done}
			if i%4 == 0 {
				c.Outcome, c.End = Refused, c.Start
			}
			s.Calls = append(s.Calls, c)
		}
		tl := newTimeline(s)
		if len(tl.Calls) != calls || tl.Height > firstLane+(maxLanes+1)*laneHeight || len(tl.Ticks) > 10 {
			t.Errorf("%d calls are %d bars, %v high, with %d ticks", calls, len(tl.Calls), tl.Height, len(tl.Ticks))
		}
		for i, a := range tl.Calls {
			left, right := a.extent()
			if a.X < 0 || a.X+a.W > timelineWidth {
				t.Errorf("call %d is drawn from %v to %v", i, a.X, a.X+a.W)
			}
			for _, b := range tl.Calls[i+1:] {
				l, r := b.extent()
				if calls <= 9 && a.Y == b.Y && left < r && l < right {
					t.Errorf("calls %d and %d overlap", a.Seq, b.Seq)
				}
			}
		}
	}
}

// The template escapes what is markup in HTML; the rest is for these two.
func FuzzText(f *testing.F) {
	f.Add(hostile)
	f.Add("a_b www.x http://y")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range visible(text) {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e {
				t.Fatalf("%U of %q is in %q", r, text, visible(text))
			}
		}
		if shown := md(text); strings.ContainsAny(shown, "|`*<>[]@\\\n") || strings.Contains(shown, "http:/") {
			t.Fatalf("%q is shown as %q", text, shown)
		}
	})
}
