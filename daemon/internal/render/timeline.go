package render

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// The timeline is drawn in units of its own: 1,000 wide, as high as it takes.
const (
	timelineWidth = 1000.0
	laneHeight    = 26.0
	firstLane     = 74.0 // below the axis, the session and its connections
	glyphWidth    = 6.6  // of a label's letter
	maxLanes      = 16
	maxLabelled   = 120 // beyond so many calls, bars only
)

// timeline is the session as it is drawn.
type timeline struct {
	Height, Width   float64
	Bottom          float64 // of the grid
	Session         bar
	Connections     []bar
	Calls           []bar
	Marks           []mark
	Ticks           []mark
	Running         bool
	AxisY, SessionY float64
}

// bar is a span; a call that did not run is a point at X.
type bar struct {
	X, Y, W         float64
	Outcome         Outcome
	Label           string
	LabelX, LabelY  float64
	Anchor          string
	Title           string
	Points          string // of a point's diamond
	Seq             uint64
	Open, Unlabeled bool
}

// mark is a moment: of the clock, or on the session's bar with its word beside
// it, at LabelX.
type mark struct {
	X, LabelX float64
	Anchor    string
	Label     string
	Title     string
}

// newTimeline places everything.
func newTimeline(s *Session) timeline {
	from, to := s.Opened, s.last()
	if !to.After(from) {
		to = from.Add(time.Second)
	}
	span := to.Sub(from)
	x := func(t time.Time) float64 {
		at := 12 + (timelineWidth-24)*float64(t.Sub(from))/float64(span)
		return min(max(at, 12), timelineWidth-12)
	}
	t := timeline{Width: timelineWidth, AxisY: 20, SessionY: 36, Running: s.Ended.IsZero()}
	end := s.Ended
	if end.IsZero() {
		end = to
	}
	t.Session = bar{X: x(from), Y: 28, W: max(4, x(end)-x(from)), Title: "the session was open"}
	for _, c := range s.Connections {
		stop := c.End
		if stop.IsZero() {
			stop = end
		}
		t.Connections = append(t.Connections, bar{X: x(c.Start), Y: 48, W: max(3, x(stop)-x(c.Start)), Title: visible(c.Label)})
	}
	lanes := t.placeCalls(s, x)
	t.Bottom = firstLane + float64(max(lanes, 1))*laneHeight
	t.Height = t.Bottom + 6
	for at, step := from.Add(0), tick(span); !at.After(to); at = at.Add(step) {
		t.Ticks = append(t.Ticks, mark{X: x(at), Label: clock(at)})
	}
	for _, e := range s.Events {
		if marked[e.Kind] != "" {
			t.Marks = append(t.Marks, mark{X: x(e.Time), Label: marked[e.Kind], Title: clock(e.Time) + " " + e.Kind + " " + visible(e.Text)})
		}
	}
	labelMarks(t.Marks)
	return t
}

// labelMarks gives each mark its word where there is room for it: to its right,
// before the next one, or else to its left.
func labelMarks(marks []mark) {
	free := 0.0 // right of what is drawn so far
	for i := range marks {
		m := &marks[i]
		width, next := widthOf(m.Label)+12, timelineWidth-8
		if i+1 < len(marks) {
			next = marks[i+1].X
		}
		switch {
		case m.X+width <= next:
			m.LabelX, m.Anchor, free = m.X+6, "start", m.X+width
		case m.X-width >= free:
			m.LabelX, m.Anchor, free = m.X-6, "end", m.X
		default:
			m.Label, free = "", m.X
		}
	}
}

// marked are the events that stand on the session's bar, and their words there.
var marked = map[string]string{
	"extend": "extended", "revoke": "revoked", "expire": "expired", "close": "closed", "confirm": "confirmed", "claim": "claimed", "refuse": "refused",
}

// placeCalls gives each call the first lane in which it, and its label, touch
// nothing.
func (t *timeline) placeCalls(s *Session, x func(time.Time) float64) (lanes int) {
	var ends []float64 // of what is in each lane
	for _, c := range s.Calls {
		b := newBar(c, s, x, len(s.Calls) <= maxLabelled)
		left, right := b.extent()
		lane := 0
		for lane < len(ends) && ends[lane] > left {
			lane++
		}
		switch {
		case lane == len(ends) && lane < maxLanes:
			ends = append(ends, right)
		case lane == len(ends): // all are taken: it is drawn over others, without a label
			lane = int(c.Seq) % maxLanes
			b.Unlabeled = true
		default:
			ends[lane] = right
		}
		b.place(firstLane + float64(lane)*laneHeight)
		t.Calls = append(t.Calls, b)
	}
	return len(ends)
}

func newBar(c Call, s *Session, x func(time.Time) float64, labelled bool) bar {
	end := c.End
	if c.Outcome == Open {
		end = s.last()
	}
	b := bar{
		X: x(c.Start), Outcome: c.Outcome, Seq: c.Seq, Unlabeled: !labelled, Anchor: "start", Open: c.Outcome == Open,
		Title: fmt.Sprintf("%s %s %s: %s", clock(c.Start), visible(c.Verb), visible(c.Params), visible(c.ending())),
	}
	b.W = max(5, x(end)-b.X)
	b.Label = clipped(visible(c.Verb))
	if whole := visible(c.Verb + " " + c.Params); b.Outcome != Refused && b.W > widthOf(whole)+14 {
		b.Label = whole // there is room for it
	}
	width := widthOf(b.Label)
	b.LabelX = b.X + b.W + 6
	switch {
	case b.Outcome != Refused && b.W > width+14: // inside
		b.LabelX = b.X + 7
	case b.Outcome == Refused:
		b.W, b.LabelX = 0, b.X+11
	}
	if b.LabelX+width > timelineWidth-4 {
		b.LabelX, b.Anchor = b.X-13, "end"
	}
	return b
}

// maxLabel is how much of a verb's name stands beside its bar.
const maxLabel = 40

func clipped(text string) string {
	if letters := []rune(text); len(letters) > maxLabel {
		return string(letters[:maxLabel]) + "…"
	}
	return text
}

// widthOf is how wide a label is drawn, about.
func widthOf(text string) float64 { return glyphWidth * float64(utf8.RuneCountInString(text)) }

// extent is what of a lane the bar takes.
func (b bar) extent() (left, right float64) {
	left, right = b.X-8, b.X+max(b.W, 8)+6
	if b.Unlabeled {
		return left, right
	}
	width := widthOf(b.Label)
	if b.Anchor == "end" {
		return min(left, b.LabelX-width), right
	}
	return left, max(right, b.LabelX+width+10)
}

// Inside reports whether the label stands on the bar.
func (b bar) Inside() bool { return b.Anchor == "start" && b.LabelX < b.X+b.W }

func (b *bar) place(y float64) {
	b.Y, b.LabelY = y, y+12.5
	if b.Outcome == Refused {
		b.Points = fmt.Sprintf("%.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f", b.X, y+1, b.X+8, y+9, b.X, y+17, b.X-8, y+9)
	}
}

// tick is a step of the clock of which the span has at most eight.
func tick(span time.Duration) time.Duration {
	steps := []time.Duration{
		100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second,
		30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, time.Hour,
	}
	for _, s := range steps {
		if span <= 8*s {
			return s
		}
	}
	return max(span/8, time.Second)
}
