package session

import (
	"sync"

	"openscope/wire/call"
)

// Ledger knows every call id the session has seen, so that none runs twice:
// not on this connection, not on a later one (wire/README.md §8).
//
// It grows by at most the session's call rate for at most its lifetime; the
// rate is charged before the ledger is asked.
type Ledger struct {
	mu    sync.Mutex
	calls map[call.ID]call.Cause // zero while running
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{calls: make(map[call.ID]call.Cause)} }

// Begin takes the id for one run. It reports false if the id was seen before,
// whatever became of it.
func (l *Ledger) Begin(id call.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, seen := l.calls[id]; seen {
		return false
	}
	l.calls[id] = 0
	return true
}

// End records how the call ended.
func (l *Ledger) End(id call.ID, cause call.Cause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[id] = cause
}
