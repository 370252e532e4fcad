package session

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
)

// Issuer is who opened a session, by the kernel's word for it.
type Issuer struct {
	UID  uint32
	User string
	// Agent is the name in the grants under which the issuer acted.
	Agent string
}

// Recipient is whom a session is for.
type Recipient struct {
	// Alias is the name in the recipients file; empty for a bearer session.
	Alias string
	// Key is the osk1 text of the registered key; empty for a bearer session.
	Key string
}

// Config says what a session is; all of it stays as it was at opening.
type Config struct {
	ID        string
	RID       wire.RendezvousID
	Issuer    Issuer
	Recipient Recipient
	Bearer    bool
	Note      string
	Lifetime  *Lifetime
	Claim     *Claim
	Limits    Limits
	Grant     passport.Grant
	// Parent is the session that this one was narrowed from by its recipient; nil
	// for one that the issuer opened. A child spends what its parent has, and is
	// over when its parent is.
	Parent *Session
	// Approve names the verbs whose calls wait for the issuer's answer, besides
	// those the grant names.
	Approve []string
}

// The ways a session refuses.
var (
	ErrEnded    = errors.New("the session has ended")
	ErrChildren = errors.New("too many child sessions")
)

// Session is one delegation. Its methods may be called from any goroutine.
type Session struct {
	Config
	Opened time.Time
	Meter  *Meter
	Ledger *Ledger

	mu       sync.Mutex
	grant    passport.Grant
	serial   uint32
	children int
	called   int // calls of its own, where the meter is its parent's
	refused  int
	lastCall string
	from     string
	fault    string
	outcomes map[string]int // how calls ended, by cause
	cause    call.Cause     // zero while live
	reason   string
	ended    time.Time
	over     chan struct{}
}

// New returns a live session.
func New(c Clock, cfg Config) *Session {
	meter := NewMeter(c, cfg.Limits)
	if cfg.Parent != nil {
		meter = cfg.Parent.Meter
	}
	return &Session{
		Config: cfg,
		Opened: c.Wall(),
		Meter:  meter,
		Ledger: NewLedger(),
		grant:  cfg.Grant,
		serial: 1,
		over:   make(chan struct{}),
	}
}

// Granted is what is delegated now, with the serial number of its passport.
func (s *Session) Granted() (passport.Grant, uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant, s.serial
}

// Widen adds to what is delegated more of the issuer's own surface; the
// passport gets the next serial number.
func (s *Session) Widen(more []passport.Verb) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != 0 {
		return ErrEnded
	}
	s.grant.Verbs = slices.Concat(s.grant.Verbs, more)
	s.serial++
	return nil
}

// MaxChildren is how many children a session may have in all. Ended ones count:
// each is held, as its parent is, until the hard limit, and who can make them at
// will must not fill the table.
const MaxChildren = 4

// Adopt takes one of the session's places for a child; giveBack is for one that
// never came to be.
func (s *Session) Adopt() (giveBack func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.children >= MaxChildren {
		return nil, fmt.Errorf("%w: %d allowed, ended ones included", ErrChildren, MaxChildren)
	}
	s.children++
	return sync.OnceFunc(s.giveBack), nil
}

func (s *Session) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.children--
}

// Root is the session that the issuer opened: this one, or its parent.
func (s *Session) Root() *Session {
	if s.Parent != nil {
		return s.Parent
	}
	return s
}

// End ends the session once; only the first cause counts. It reports whether
// this call ended it.
func (s *Session) End(cause call.Cause, reason string, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != 0 {
		return false
	}
	s.cause, s.reason, s.ended = cause, reason, at
	close(s.over)
	return true
}

// Over is closed when the session has ended.
func (s *Session) Over() <-chan struct{} { return s.over }

// Ended returns why the session ended; the cause is zero while it is live.
func (s *Session) Ended() (cause call.Cause, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause, s.reason
}

// Live returns an error once the session has ended or its time has passed,
// whether or not anything has noticed yet.
func (s *Session) Live() error {
	if cause, _ := s.Ended(); cause != 0 || s.Lifetime.Remaining() == 0 {
		return ErrEnded
	}
	if s.Parent != nil {
		return s.Parent.Live()
	}
	return nil
}

// NoteCall remembers the newest call for the issuer's list.
func (s *Session) NoteCall(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastCall = line
	s.called++
}

// NoteRefused counts one refused call or handshake.
func (s *Session) NoteRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
}

// NoteOutcome counts how a call ended.
func (s *Session) NoteOutcome(c call.Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcomes == nil {
		s.outcomes = make(map[string]int)
	}
	s.outcomes[c.String()]++
}

// NoteFrom remembers where the relay says the newest connection came from.
func (s *Session) NoteFrom(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = address
}

// NoteFault remembers what went wrong on the daemon's own side.
func (s *Session) NoteFault(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = text
}

// Summary is what the issuer's list shows beside the configuration.
type Summary struct {
	Calls    int // that were let run
	Refused  int
	LastCall string
	From     string
	Fault    string
	Outcomes map[string]int
}

// Summary returns the counters as they stand.
func (s *Session) Summary() Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Summary{
		Calls: s.called, Refused: s.refused + s.Claim.Refused(), LastCall: s.lastCall, From: s.from, Fault: s.fault,
		Outcomes: maps.Clone(s.outcomes),
	}
}
