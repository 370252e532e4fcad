package main

import (
	"slices"
	"time"

	"openscope/daemon/internal/control"
)

// intent is what a key asks for, besides what it changes on the screen.
type intent struct {
	answer *control.AnswerRequest
	revoke bool
	leave  bool
}

// settleTime is how long a call has to have stood there before a key answers for
// it: a finger that was on its way meant the one before.
const settleTime = 300 * time.Millisecond

// key takes one key in.
func (s *watched) key(k string, now time.Time) intent {
	s.notice = ""
	if s.asking {
		s.asking = false
		if k == "y" {
			s.note("ending the session ...", now)
			return intent{revoke: true}
		}
		return intent{}
	}
	switch k {
	case "q", "\x03", "\x04":
		return intent{leave: true}
	case "\x1b[A", "\x1bOA", "k":
		s.scrollBy(1)
	case "\x1b[B", "\x1bOB", "j":
		s.scrollBy(-1)
	case "\x1b[5~", "b":
		s.scrollBy(10)
	case "\x1b[6~", " ":
		s.scrollBy(-10)
	case "\x1b[F", "\x1b[4~", "\x1bOF", "G":
		s.scroll = 0
	default:
		return s.act(k, now)
	}
	return intent{}
}

// act is for the keys that change more than the screen.
func (s *watched) act(k string, now time.Time) intent {
	if s.readOnly || s.over {
		return intent{}
	}
	switch k {
	case "a", "d":
		w := s.waiting()
		if w == nil {
			return intent{}
		}
		if now.Sub(s.chosen) < settleTime {
			s.note("this call has only just come up: look, and press the key again", now)
			return intent{}
		}
		s.note("answering for "+w.Call+" ...", now)
		return intent{answer: &control.AnswerRequest{Call: w.Call, Approve: k == "a"}}
	case "\t":
		if n := len(s.share.Waiting); n > 1 {
			i := slices.IndexFunc(s.share.Waiting, func(c control.WaitingCall) bool { return c.Call == s.selected })
			s.selected, s.chosen = s.share.Waiting[(i+1)%n].Call, now
		}
	case "r":
		s.asking = true
	}
	return intent{}
}

func (s *watched) scrollBy(n int) { s.scroll = min(max(0, s.scroll+n), max(0, len(s.history)-1)) }
