package session

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
)

// The ways a claim refuses.
var (
	ErrClaimedByAnother = errors.New("the session is claimed by another key")
	ErrNotClaimed       = errors.New("nobody has connected to the session yet")
	ErrWordsDiffer      = errors.New("the words differ")
)

// Claim is whose session it is (wire/README.md §9). A sealed session is
// claimed from the start, by the registered key; a bearer session by the first
// key that finishes a handshake, and its calls wait until the issuer has
// confirmed that key's session words.
type Claim struct {
	mu        sync.Mutex
	key       ed25519.PublicKey
	words     [][]byte // of the newest connections of the claiming key
	refused   int
	confirmed chan struct{} // closed once
	open      bool          // confirmed is not yet closed
}

// NewSealedClaim is the claim of a registered recipient: nothing to confirm.
func NewSealedClaim(key ed25519.PublicKey) *Claim {
	c := NewBearerClaim(true)
	c.key = key
	return c
}

// NewBearerClaim is open to the first key. With waived, its calls do not wait
// for the words.
func NewBearerClaim(waived bool) *Claim {
	c := &Claim{confirmed: make(chan struct{}), open: true}
	if waived {
		c.close()
	}
	return c
}

// Take claims the session for the key, or finds that it already has. first is
// true for the handshake that made the claim.
func (c *Claim) Take(key ed25519.PublicKey) (first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		c.key = bytes.Clone(key)
		return true, nil
	}
	if !c.key.Equal(key) {
		c.refused++
		return false, ErrClaimedByAnother
	}
	return false, nil
}

// keptWords is how many connections' words are compared: as many as a
// recipient may have standing.
const keptWords = 4

// AddWords notes the session words' secret of a connection of the claiming
// key. A recipient may read out those of any connection they have.
func (c *Claim) AddWords(sas []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.words = append(c.words, bytes.Clone(sas))
	c.words = c.words[max(0, len(c.words)-keptWords):]
}

// Compare holds what the issuer typed, by match, against the words of the
// claiming key's connections.
func (c *Claim) Compare(match func(sas []byte) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.words == nil {
		return ErrNotClaimed
	}
	if !slices.ContainsFunc(c.words, match) {
		return ErrWordsDiffer
	}
	return nil
}

// Confirm lets the claim's calls run: its words were compared and found equal,
// and the log has it.
func (c *Claim) Confirm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close()
}

// Confirmed is closed once calls need not wait.
func (c *Claim) Confirmed() <-chan struct{} { return c.confirmed }

// IsConfirmed reports whether calls need not wait.
func (c *Claim) IsConfirmed() bool {
	select {
	case <-c.confirmed:
		return true
	default:
		return false
	}
}

// Key is the claiming key, or nil.
func (c *Claim) Key() ed25519.PublicKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

// Refused is how many handshakes came with another key.
func (c *Claim) Refused() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

func (c *Claim) close() {
	if c.open {
		c.open = false
		close(c.confirmed)
	}
}
