package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// teller shows what a daemon says unasked. Whoever reads the daemon's records
// must not wait for a terminal that is held, or for a pipe that nobody empties;
// and a daemon that talks without end must not fill the screen: what is too much
// is counted, and dropped.
type teller struct {
	lines   chan string
	dropped atomic.Uint64
	done    chan struct{} // closed when run has returned
}

const (
	maxTold = 32
	// tellEvery keeps the lines of a flood apart: a person has to find the prompt.
	tellEvery = 50 * time.Millisecond
	// settleFor is how long the end waits for what was told before it.
	settleFor = 500 * time.Millisecond
)

func newTeller() *teller {
	return &teller{lines: make(chan string, maxTold), done: make(chan struct{})}
}

// add has a text shown, some time. It never blocks.
func (t *teller) add(text string) {
	select {
	case t.lines <- text:
	default:
		t.dropped.Add(1)
	}
}

// run shows what is added until the session is over, and then what is left.
func (t *teller) run(over <-chan struct{}, show func(string)) {
	defer close(t.done)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case text := <-t.lines:
			t.show(text, show)
		case <-over:
			for len(t.lines) > 0 {
				t.show(<-t.lines, show)
			}
			return
		}
		select {
		case <-tick.C:
		case <-over:
		}
	}
}

func (t *teller) show(text string, show func(string)) {
	show(text)
	if n := t.dropped.Swap(0); n > 0 {
		show(fmt.Sprintf("%d more notices came faster than they can be read", n))
	}
}

// settle waits until all is shown; not for one whose screen stands still.
func (t *teller) settle() {
	select {
	case <-t.done:
	case <-time.After(settleFor):
	}
}
