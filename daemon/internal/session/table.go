package session

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// MaxOpen is how many sessions a daemon holds, ended ones included until their
// hard limit.
const MaxOpen = 256

// ErrFull is returned when no further session can be held.
var ErrFull = errors.New("too many sessions")

// Table is every session of the daemon, live or ended, until its hard limit:
// so long a late client can still be told why.
type Table struct {
	mu   sync.Mutex
	byID map[string]*Session
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{byID: make(map[string]*Session)}
}

// Add enters a session.
func (t *Table) Add(s *Session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= MaxOpen {
		return fmt.Errorf("%w: %d", ErrFull, MaxOpen)
	}
	if t.byID[s.ID] != nil {
		return fmt.Errorf("session %s is already there", s.ID)
	}
	t.byID[s.ID] = s
	return nil
}

// ByID finds a session by the id people type.
func (t *Table) ByID(id string) (*Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.byID[id]
	return s, ok
}

// All returns every session, oldest first.
func (t *Table) All() []*Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Session, 0, len(t.byID))
	for _, s := range t.byID {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Session) int {
		return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Forget drops a session: after its hard limit nobody is told anything.
func (t *Table) Forget(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, s.ID)
}
