package session

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// HardCap is the longest any session lives after opening, whatever is
// extended. Configuration can lower it; nothing can raise it.
const HardCap = 30 * time.Minute

// ErrOver is returned by Extend once the session's time has passed.
var ErrOver = errors.New("the session is over")

// TooLongError says that an extension would pass the cap. Longest is the
// longest extension that would still be granted now.
type TooLongError struct{ Longest time.Duration }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("would pass the session's cap; the longest possible now is %s", e.Longest.Truncate(time.Second))
}

// Lifetime is a deadline that may be moved, under a cap that may not.
type Lifetime struct {
	clock Clock
	hard  Deadline
	above *Lifetime // ends this one too; nil for a session that stands alone

	mu       sync.Mutex
	deadline Deadline
}

// NewLifetime starts a lifetime of ttl under the cap. A ttl that is not
// positive, or longer than the cap, is refused rather than replaced.
func NewLifetime(c Clock, ttl, limit time.Duration) (*Lifetime, error) {
	limit = min(limit, HardCap)
	if ttl <= 0 {
		return nil, fmt.Errorf("lifetime %s is not positive", ttl)
	}
	if ttl > limit {
		return nil, &TooLongError{Longest: limit}
	}
	return &Lifetime{clock: c, hard: After(c, limit), deadline: After(c, ttl)}, nil
}

// Below starts a lifetime of ttl inside this one: under the same cap, and over
// at the latest when this one is, whichever way its deadline is moved.
func (l *Lifetime) Below(ttl time.Duration) (*Lifetime, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("lifetime %s is not positive", ttl)
	}
	if longest := l.Remaining(); ttl > longest {
		return nil, &TooLongError{Longest: longest}
	}
	return &Lifetime{clock: l.clock, hard: l.hard, above: l, deadline: After(l.clock, ttl).earlier(l.hard)}, nil
}

// Rest starts a lifetime of all the time that this one has left now, inside this
// one as Below's are.
func (l *Lifetime) Rest() *Lifetime {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Lifetime{clock: l.clock, hard: l.hard, above: l, deadline: l.deadline}
}

// Extend moves the deadline to ttl from now: later or earlier, never past the
// cap, and never back to life.
func (l *Lifetime) Extend(ttl time.Duration) error {
	longest := l.hard.Remaining(l.clock)
	if l.above != nil {
		longest = min(longest, l.above.Remaining())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deadline.Passed(l.clock) || longest == 0 {
		return ErrOver
	}
	if ttl <= 0 {
		return fmt.Errorf("lifetime %s is not positive", ttl)
	}
	if ttl > longest {
		return &TooLongError{Longest: longest}
	}
	l.deadline = After(l.clock, ttl).earlier(l.hard)
	return nil
}

// Remaining is the time left before the deadline; zero when it has passed.
func (l *Lifetime) Remaining() time.Duration {
	l.mu.Lock()
	left := l.deadline.Remaining(l.clock)
	l.mu.Unlock()
	if l.above != nil {
		left = min(left, l.above.Remaining())
	}
	return left
}

// Deadline is when the session ends, by the wall clock.
func (l *Lifetime) Deadline() time.Time {
	l.mu.Lock()
	at := l.deadline.Wall()
	l.mu.Unlock()
	if l.above != nil {
		if above := l.above.Deadline(); above.Before(at) {
			return above
		}
	}
	return at
}

// HardLimit is the moment no extension can pass, by the wall clock.
func (l *Lifetime) HardLimit() time.Time { return l.hard.Wall() }

// HardRemaining is the time left before the cap.
func (l *Lifetime) HardRemaining() time.Duration { return l.hard.Remaining(l.clock) }
