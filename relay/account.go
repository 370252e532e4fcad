package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"openscope/wire"
)

// accounts is what every token that is in use has taken.
type accounts struct {
	defaults TokenLimits
	clock    func() time.Time

	mu  sync.Mutex // guards what is below
	all map[wire.TokenID]*account
}

// account is one token's. It outlives the token's last connection until its
// day has passed: who reconnects does not start anew.
type account struct {
	accounts *accounts

	mu          sync.Mutex // guards what is below
	limits      TokenLimits
	connections int
	joins       *rate.Limiter
	bytes       *rate.Limiter // nil is no limit
	day         int64         // that used is of
	used        int64
}

var errSpent = errors.New("the token has used what it may")

func newAccounts(defaults TokenLimits, clock func() time.Time) *accounts {
	return &accounts{defaults: defaults, clock: clock, all: make(map[wire.TokenID]*account)}
}

// enter counts one more connection of the token, if it may have one.
func (a *accounts) enter(id wire.TokenID, own TokenLimits) (*account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.all[id]
	if acc == nil {
		acc = &account{accounts: a}
		a.all[id] = acc
	}
	acc.set(own.or(a.defaults))
	acc.mu.Lock()
	defer acc.mu.Unlock()
	if acc.connections >= acc.limits.Connections {
		return nil, false
	}
	acc.connections++
	return acc, true
}

// set takes the token's limits as they are now.
func (acc *account) set(l TokenLimits) {
	acc.mu.Lock()
	defer acc.mu.Unlock()
	if acc.limits == l {
		return
	}
	acc.limits = l
	acc.joins = rate.NewLimiter(rate.Limit(l.Joins), burst*l.Joins)
	acc.bytes = nil
	if l.Rate > 0 {
		acc.bytes = rate.NewLimiter(rate.Limit(l.Rate), int(max(l.Rate, pieceSize)))
	}
}

func (acc *account) leave() {
	acc.mu.Lock()
	defer acc.mu.Unlock()
	acc.connections--
}

func (acc *account) sessions() int {
	acc.mu.Lock()
	defer acc.mu.Unlock()
	return acc.limits.Sessions
}

// mayJoin counts a join that has proved itself.
func (acc *account) mayJoin() bool {
	acc.mu.Lock()
	defer acc.mu.Unlock()
	acc.turn()
	return acc.joins.Allow() && (acc.limits.Bytes == 0 || acc.used < acc.limits.Bytes)
}

// turn begins a new day.
func (acc *account) turn() {
	if day := acc.accounts.clock().Unix() / 86400; day != acc.day {
		acc.day, acc.used = day, 0
	}
}

// spend counts n bytes about to be forwarded, and waits where the token's rate
// says so.
func (acc *account) spend(ctx context.Context, n int) error {
	acc.mu.Lock()
	acc.turn()
	acc.used += int64(n)
	spent := acc.limits.Bytes > 0 && acc.used > acc.limits.Bytes
	limiter := acc.bytes
	acc.mu.Unlock()
	if spent {
		return errSpent
	}
	if limiter == nil {
		return nil
	}
	return limiter.WaitN(ctx, n)
}

// sweep forgets accounts that nobody uses and that have used nothing today.
func (a *accounts) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, acc := range a.all {
		acc.mu.Lock()
		acc.turn()
		if acc.connections == 0 && acc.used == 0 {
			delete(a.all, id)
		}
		acc.mu.Unlock()
	}
}
