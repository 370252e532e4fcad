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
	calls map[call.ID]Ending // without cause while running
}

// Ending is how a call ended, as it was told and is told again.
type Ending struct {
	Cause call.Cause
	// End and Signature are the daemon's END, nil where none could be signed.
	End, Signature []byte
	// Reason is what people were told; may be empty.
	Reason string
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{calls: make(map[call.ID]Ending)} }

// Begin takes the id for one run. It reports false if the id was seen before,
// whatever became of it.
func (l *Ledger) Begin(id call.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, seen := l.calls[id]; seen {
		return false
	}
	l.calls[id] = Ending{}
	return true
}

// End records how the call ended.
func (l *Ledger) End(id call.ID, how Ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[id] = how
}

// Lookup finds a call that was seen; it has no cause while it runs.
func (l *Ledger) Lookup(id call.ID) (Ending, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how, seen := l.calls[id]
	return how, seen
}
