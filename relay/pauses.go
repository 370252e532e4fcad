package relay

import (
	"sync"
	"time"
)

const (
	// crowd is how many directions may be busy before any has to pause.
	crowd = 16
	// share is the pause between two reads of a direction for each busy one.
	share = 200 * time.Microsecond
	// longestPause bounds what a crowd adds to the way of a busy session's bytes.
	longestPause = 20 * time.Millisecond
	// small is what a direction has less of to read that is not busy: small calls,
	// and the flow control of what comes the other way.
	small = 1 << 10
)

// pauses lets a crowd of busy directions be forwarded in larger pieces. A
// daemon's connection carries its streams a packet of each after the other: of a
// hundred streams each has a packet or two to read at a time, which would go out
// by themselves, to be acknowledged by themselves, at several times a train's
// cost. So the busier the relay is, the less often each direction is read. Up to
// [crowd] there is no pause, and none for a direction that was not just read: a
// small call goes through at once.
type pauses struct {
	mu     sync.Mutex // guards what is below
	begun  time.Time  // of the current count
	busy   int        // directions that were read in it
	before int        // and in the one before it
}

// next returns how long a direction that has something to read leaves it. It had
// so much the last time, at last, which becomes when it will be read now.
func (p *pauses) next(had int, last *time.Time, now time.Time) (pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if counted := now.Sub(p.begun); counted >= longestPause {
		if p.before = p.busy; counted >= 2*longestPause {
			p.before = 0
		}
		p.begun, p.busy = now, 0
	}
	if had >= small && last.Before(p.begun) {
		p.busy++
	}
	if p.before > crowd {
		pause = max(last.Add(min(time.Duration(p.before)*share, longestPause)).Sub(now), 0)
	}
	*last = now.Add(pause)
	return pause
}
