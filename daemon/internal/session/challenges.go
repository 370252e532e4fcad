package session

import (
	"crypto/subtle"
	"fmt"
	"io"
	"sync"
	"time"

	"openscope/wire/call"
)

// FreshFor is how long after its issue a challenge admits a CALL
// (wire/README.md §7).
const FreshFor = 10 * time.Second

// keptChallenges is how many of the newest challenges a connection remembers.
const keptChallenges = 64

// Challenges are the freshness challenges of one connection. A CALL runs only
// if it names one that was issued here, and recently, by the boot-time clock:
// a relay that holds a CALL back cannot have it run late.
type Challenges struct {
	clock Clock
	rand  io.Reader

	mu     sync.Mutex
	issued [keptChallenges]issuedChallenge
	next   int
}

type issuedChallenge struct {
	challenge call.Challenge
	at        time.Duration
	valid     bool
}

// NewChallenges returns an empty set, drawing new challenges from rand.
func NewChallenges(c Clock, rand io.Reader) *Challenges {
	return &Challenges{clock: c, rand: rand}
}

// Issue draws a challenge and remembers when.
func (c *Challenges) Issue() (call.Challenge, error) {
	var fresh call.Challenge
	if _, err := io.ReadFull(c.rand, fresh[:]); err != nil {
		return fresh, fmt.Errorf("drawing a challenge: %w", err)
	}
	c.Remember(fresh)
	return fresh, nil
}

// Remember records a challenge that was drawn elsewhere: the first eight bytes
// of the daemon's handshake nonce are the connection's first.
func (c *Challenges) Remember(challenge call.Challenge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issued[c.next] = issuedChallenge{challenge: challenge, at: c.clock.Boot(), valid: true}
	c.next = (c.next + 1) % keptChallenges
}

// Fresh reports whether the challenge was issued on this connection at most
// [FreshFor] ago.
func (c *Challenges) Fresh(challenge call.Challenge) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Boot()
	for i := range c.issued {
		known := &c.issued[i]
		if known.valid && subtle.ConstantTimeCompare(known.challenge[:], challenge[:]) == 1 {
			age := now - known.at
			return age >= 0 && age <= FreshFor
		}
	}
	return false
}
