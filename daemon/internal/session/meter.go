package session

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
)

// Limits bound what one session may spend. They are the session's, however
// many connections its recipient opens.
type Limits struct {
	// Concurrent is how many calls run at once.
	Concurrent int
	// PerSecond is how many calls arrive per second, refused ones included.
	PerSecond int
	// Calls is how many run in all; zero is no limit.
	Calls uint32
	// CallOutput and Output bound the bytes one call, and the session, send.
	CallOutput, Output uint64
}

// DefaultLimits are those of a session whose grant and issuer name none.
func DefaultLimits() Limits {
	return Limits{Concurrent: 8, PerSecond: 20, CallOutput: 8 << 20, Output: 64 << 20}
}

// The ways a meter refuses.
var (
	ErrRate       = errors.New("too many calls per second")
	ErrConcurrent = errors.New("too many calls at once")
	ErrCalls      = errors.New("the session's number of calls is used up")
	ErrOutput     = errors.New("output limit reached")
)

// Meter holds a session to its limits.
type Meter struct {
	limits Limits
	clock  Clock
	rate   *rate.Limiter

	mu      sync.Mutex
	running int
	calls   uint32
	output  uint64
}

// NewMeter returns a meter with nothing spent.
func NewMeter(c Clock, l Limits) *Meter {
	return &Meter{limits: l, clock: c, rate: rate.NewLimiter(rate.Limit(l.PerSecond), l.PerSecond)}
}

// Arrive charges one arriving call against the rate.
func (m *Meter) Arrive() error {
	if !m.rate.AllowN(m.clock.Wall(), 1) {
		return fmt.Errorf("%w: %d allowed", ErrRate, m.limits.PerSecond)
	}
	return nil
}

// Start takes a slot and one of the session's calls; the returned function
// gives the slot back. Calls never queue: without a slot the answer is an error.
func (m *Meter) Start() (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running >= m.limits.Concurrent {
		return nil, fmt.Errorf("%w: %d allowed", ErrConcurrent, m.limits.Concurrent)
	}
	if m.limits.Calls > 0 && m.calls >= m.limits.Calls {
		return nil, fmt.Errorf("%w: %d allowed", ErrCalls, m.limits.Calls)
	}
	m.running++
	m.calls++
	return sync.OnceFunc(m.release), nil
}

func (m *Meter) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running--
}

// Output charges n bytes of output and returns how many of them may be sent.
func (m *Meter) Output(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	allowed := min(uint64(n), m.limits.Output-m.output)
	m.output += allowed
	return int(allowed)
}

// CallOutput is the limit of one call's output, in bytes.
func (m *Meter) CallOutput() uint64 { return m.limits.CallOutput }

// Calls is how many calls have started.
func (m *Meter) Calls() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}
