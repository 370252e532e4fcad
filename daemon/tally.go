package daemon

import (
	"errors"
	"sync"
	"time"
)

// tally holds the log to one entry per period for something a peer can repeat
// at will, without losing the count.
type tally struct {
	mu    sync.Mutex
	count int
	last  time.Duration
	begun bool
}

// note counts one. When an entry is due it returns the count since the last.
func (t *tally) note(now, period time.Duration) (n int, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if t.begun && now-t.last < period {
		return 0, false
	}
	n, t.count, t.last, t.begun = t.count, 0, now, true
	return n, true
}

// flush returns what was counted and not yet entered.
func (t *tally) flush() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.count
	t.count = 0
	return n
}

// counted is how many were noted since the last entry.
func (t *tally) counted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// joinErrors is errors.Join, but returns a lone error as it is.
func joinErrors(err, other error) error {
	if other == nil {
		return err
	}
	return errors.Join(err, other)
}
