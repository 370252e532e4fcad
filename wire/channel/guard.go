package channel

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The guard's bounds, per session (§5).
const (
	seenKeys   = 4096
	msg2Rate   = 10
	msg2Bursts = 20
)

// Guard stands between a session's msg1s and the first public-key operation:
// each fresh key is answered once, and only so many in a second.
type Guard struct {
	now  func() time.Time
	rate *rate.Limiter

	mu   sync.Mutex
	seen map[[32]byte]struct{}
	ring [][32]byte // in order of arrival, oldest at next
	next int
}

// NewGuard returns the guard of a new session.
func NewGuard(now func() time.Time) *Guard {
	return &Guard{now: now, rate: rate.NewLimiter(msg2Rate, msg2Bursts), seen: make(map[[32]byte]struct{})}
}

var (
	errReplay   = errors.New("msg1's key was seen before")
	errMsg2Rate = errors.New("too many handshakes for this session")
)

func (g *Guard) admit(ek []byte) error {
	hash := sha256.Sum256(ek)
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.seen[hash]; ok {
		return errReplay
	}
	if !g.rate.AllowN(g.now(), 1) {
		return errMsg2Rate
	}
	g.remember(hash)
	return nil
}

func (g *Guard) remember(hash [32]byte) {
	g.seen[hash] = struct{}{}
	if len(g.ring) < seenKeys {
		g.ring = append(g.ring, hash)
		return
	}
	delete(g.seen, g.ring[g.next])
	g.ring[g.next] = hash
	g.next = (g.next + 1) % seenKeys
}
