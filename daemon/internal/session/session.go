package session

import (
	"errors"
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
	// Approve names the verbs whose calls wait for the issuer's answer, besides
	// those the grant names.
	Approve []string
}

// ErrEnded is returned for a session that is over.
var ErrEnded = errors.New("the session has ended")

// Session is one delegation. Its methods may be called from any goroutine.
type Session struct {
	Config
	Opened time.Time
	Meter  *Meter
	Ledger *Ledger

	mu       sync.Mutex
	grant    passport.Grant
	serial   uint32
	refused  int
	lastCall string
	from     string
	fault    string
	cause    call.Cause // zero while live
	reason   string
	ended    time.Time
	over     chan struct{}
}

// New returns a live session.
func New(c Clock, cfg Config) *Session {
	return &Session{
		Config: cfg,
		Opened: c.Wall(),
		Meter:  NewMeter(c, cfg.Limits),
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

// Widen replaces what is delegated by more of the issuer's own surface; the
// passport gets the next serial number.
func (s *Session) Widen(g passport.Grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != 0 {
		return ErrEnded
	}
	s.grant = g
	s.serial++
	return nil
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
	return nil
}

// NoteCall remembers the newest call for the issuer's list.
func (s *Session) NoteCall(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastCall = line
}

// NoteRefused counts one refused call or handshake.
func (s *Session) NoteRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
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
	Refused  int
	LastCall string
	From     string
	Fault    string
}

// Summary returns the counters as they stand.
func (s *Session) Summary() Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Summary{Refused: s.refused + s.Claim.Refused(), LastCall: s.lastCall, From: s.from, Fault: s.fault}
}
