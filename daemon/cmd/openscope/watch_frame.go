package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// frame is the screen: at most h lines of at most w columns each. It depends on
// nothing but what it is given.
func frame(s *watched, now time.Time, w, h int) []row {
	if w < 1 || h < 1 {
		return nil
	}
	top := []row{{text: header(s, now, w), style: bar}}
	bottom := []row{{text: fit(keysText(s, now, w), w), style: bar}}
	if h < 6 || w < 20 {
		return slices.Concat(top, bottom)[:min(h, 2)]
	}
	if h >= 10 {
		top = append(top, summary(s, w, h)...)
	}
	middle := slices.Concat(runningRows(s, now, w), waitingRows(s, now, w, h))
	room := h - len(top) - len(bottom)
	if len(middle) > room-1 { // what has to be answered stays
		middle = middle[max(0, len(middle)-room+1):]
	}
	body := historyRows(s, w, room-len(middle))
	for len(body) < room-len(middle) {
		body = append(body, row{})
	}
	return slices.Concat(top, body, middle, bottom)
}

// header is whose session it is, and how long.
func header(s *watched, now time.Time, w int) string {
	state := s.share.State
	if s.share.From != "" && state == control.StateConnected {
		state += " from " + s.share.From
	}
	right := durationClock(s.left(now)) + " left "
	switch {
	case s.lost:
		right = "the daemon does not answer "
	case s.over:
		right = "ENDED "
	}
	left := fmt.Sprintf(" %s  %s as %s -> %s  %s", s.share.ID, s.share.Issuer, s.share.Agent, s.share.Recipient, state)
	left = term.OneLine(left)
	return apart(" "+left+" ", " "+right, w)
}

// summary is what may be called, and what was.
func summary(s *watched, w, h int) []row {
	said := fmt.Sprintf("  %d calls", s.share.Calls)
	if how := outcomes(s.share); how != "" {
		said += ": " + how
	}
	if s.share.Note != "" {
		said += "   note: " + term.OneLine(s.share.Note)
	}
	if s.share.Error != "" {
		said += "   error: " + term.OneLine(s.share.Error)
	}
	rows := []row{{text: fit(said, w), style: faint}}
	verbs := packed("  may call  ", s.share.Verbs, w)
	for _, line := range verbs[:min(len(verbs), max(1, h/8))] {
		rows = append(rows, row{text: line, style: faint})
	}
	if s.share.State == control.StateUnconfirmed {
		rows = append(rows, row{text: fit("  have them read you four words, then: openscope share confirm "+s.share.ID+" WORDS", w), style: alert})
	}
	return append(rows, row{text: strings.Repeat("-", w), style: faint})
}

// packed are the words on as few lines as take them, below one another; a word
// that is longer than a line is broken.
func packed(title string, words []string, w int) []string {
	lines, indent := []string{title}, width(title)
	for _, word := range words {
		last := &lines[len(lines)-1]
		if width(*last) > indent && width(*last)+width(word) > w {
			lines = append(lines, strings.Repeat(" ", indent))
			last = &lines[len(lines)-1]
		}
		*last += term.OneLine(word) + "  "
	}
	var cut []string
	for _, line := range lines {
		cut = append(cut, wrapped(strings.TrimRight(line, " "), w, indent+2)...)
	}
	return cut
}

// stamp is how wide the time before a row is.
const stamp = len("15:04:05 ")

// historyRows are the newest rows that fit, or older ones where it is scrolled.
func historyRows(s *watched, w, room int) []row {
	if room <= 0 {
		return nil
	}
	end := max(0, len(s.history)-s.scroll)
	var rows []row
	for i := end - 1; i >= 0 && len(rows) < room; i-- {
		r := s.history[i]
		prefix := strings.Repeat(" ", stamp)
		if !r.at.IsZero() {
			prefix = clock(r.at) + " "
		}
		lines := wrapped(prefix+r.text, w, stamp+5)
		for _, line := range slices.Backward(lines) {
			rows = append(rows, row{text: line, style: r.style})
		}
	}
	rows = rows[:min(len(rows), room)]
	slices.Reverse(rows)
	return rows
}

// runningRows are the calls that run now.
func runningRows(s *watched, now time.Time, w int) []row {
	var rows []row
	for _, c := range s.share.Running {
		name, size := "", ""
		if known := s.calls[c.ID]; known != nil {
			name, size = fmt.Sprintf("#%d ", known.number), ", "+sizeText(known.bytes)
		}
		// The daemon's clock is this machine's.
		right := durationText(now.Sub(c.Since)) + size + " "
		rows = append(rows, row{text: apart("  running  "+term.OneLine(name+c.Verb+paramsText(c.Params)), right, w), style: strong})
	}
	return rows
}

// apart is one text at the left and one at the right edge; the right one stays
// whole where it fits at all.
func apart(left, right string, w int) string {
	n := min(w, width(right))
	return fit(left, w-n) + fit(right, n)
}

// waitingRows are the call that keys answer for, and how many more there are.
func waitingRows(s *watched, now time.Time, w, h int) []row {
	c := s.waiting()
	if c == nil {
		return nil
	}
	index := slices.IndexFunc(s.share.Waiting, func(other control.WaitingCall) bool { return other.Call == c.Call })
	left := max(0, time.Duration(c.WithinS*float64(time.Second))-now.Sub(c.Since))
	right := fmt.Sprintf("%d of %d, %s left to answer ", index+1, len(s.share.Waiting), durationClock(left))
	name := ""
	if known := s.calls[c.ID]; known != nil {
		name = fmt.Sprintf("#%d ", known.number)
	}
	rows := []row{{text: apart("  WAITING  "+term.OneLine(name+c.Verb+paramsText(c.Params)), right, w), style: alert}}
	lines := wrapped("           "+term.OneLine(c.Line), w, 13)
	for _, line := range lines[:min(len(lines), max(1, h/6))] {
		rows = append(rows, row{text: line, style: alert})
	}
	if len(lines) > max(1, h/6) {
		rows = append(rows, row{text: fit("    ... there is more of it: openscope share show "+s.share.ID, w), style: alert})
	}
	return rows
}

// noticeTime is how long a notice covers the keys.
const noticeTime = 4 * time.Second

// keysText is what can be pressed.
func keysText(s *watched, now time.Time, w int) string {
	switch {
	case s.asking:
		return " end " + s.share.ID + " now? running work is killed.   y yes   any other key no"
	case s.notice != "" && now.Sub(s.noticed) < noticeTime:
		return " " + term.OneLine(s.notice)
	}
	var keys []string
	if !s.readOnly && !s.over {
		if s.waiting() != nil {
			keys = append(keys, "a approve", "d deny")
		}
		if len(s.share.Waiting) > 1 {
			keys = append(keys, "tab next")
		}
		keys = append(keys, "r revoke")
	}
	if s.readOnly {
		keys = append(keys, "read only")
	}
	if s.scroll > 0 {
		keys = append(keys, "end newest")
	}
	keys = append(keys, "up/down scroll", "q leave")
	if w < 60 {
		return " " + strings.Join(keys, " ")
	}
	return " " + strings.Join(keys, "   ")
}

// durationClock is a countdown: 24:13.
func durationClock(d time.Duration) string {
	seconds := int((d + time.Second - 1) / time.Second)
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}
