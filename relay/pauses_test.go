package relay

import (
	"testing"
	"time"
)

// reads has so many full directions ask once every millisecond for so long, and
// returns how often the first was read.
func reads(p *pauses, begin time.Time, directions int, d time.Duration) (times int) {
	return readsOf(p, pieceSize, begin, directions, d)
}

// readsOf is the same of directions that have so much each time.
func readsOf(p *pauses, each int, begin time.Time, directions int, d time.Duration) (times int) {
	last, free := make([]time.Time, directions), make([]time.Time, directions)
	for now := begin; now.Before(begin.Add(d)); now = now.Add(time.Millisecond) {
		for i := range last {
			if now.Before(free[i]) {
				continue // it sleeps
			}
			free[i] = now.Add(p.next(each, &last[i], now) + 1)
			if i == 0 {
				times++
			}
		}
	}
	return times
}

func TestTheBusierTheRelayTheLessOftenADirectionIsRead(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	for _, c := range []struct{ directions, least, most int }{
		{1, 1000, 1000},
		{crowd, 1000, 1000},
		{crowd + 8, 150, 300}, // 4.8 ms between two
		{50, 80, 130},
		{100, 45, 80}, // 20 ms, after the first window
		{1000, 45, 80},
	} {
		got := reads(&pauses{}, begin, c.directions, time.Second)
		if got < c.least || got > c.most {
			t.Errorf("of %d directions each was read %d times in a second, not %d to %d", c.directions, got, c.least, c.most)
		}
	}
}

func TestASmallCallGoesThroughACrowdAtOnce(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	p := &pauses{}
	reads(p, begin, 100, time.Second)
	now := begin.Add(time.Second)
	var call time.Time
	for range 20 {
		if pause := p.next(pieceSize, &call, now); pause > 0 {
			t.Fatalf("it pauses for %v", pause)
		}
		reads(p, now, 99, longestPause)
		now = now.Add(longestPause)
	}
}

// What flow control and small calls send makes no crowd.
func TestWhoHasLittleIsNotBusy(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	p := &pauses{}
	if got := readsOf(p, small-1, begin, 1000, time.Second); got != 1000 {
		t.Errorf("among others of its kind it was read %d times in a second", got)
	}
	if got := reads(p, begin.Add(time.Second), crowd, time.Second); got != 1000 {
		t.Errorf("beside them a full direction was read %d times in a second", got)
	}
}

func TestACrowdThatHasGoneIsForgotten(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	p := &pauses{}
	reads(p, begin, 100, time.Second)
	later := begin.Add(time.Second + 2*longestPause)
	if got := reads(p, later, 2, 100*time.Millisecond); got != 100 {
		t.Errorf("it was read %d times in a tenth of a second", got)
	}
}
