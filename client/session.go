package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/report"
)

// The rhythm of a connection (wire/README.md §7).
const (
	pingRunning = 3 * time.Second  // while a call runs or waits; idle, the daemon pings
	pingSilent  = 30 * time.Second // idle, without the daemon's own PING
	deadRunning = 15 * time.Second // silence that ends the connection
	deadIdle    = 60 * time.Second
	staleAfter  = 5 * time.Second        // a newest challenge older than this needs a PING first
	closeGrace  = 250 * time.Millisecond // from CLOSE to the reset
	// Output that stops for stallAfter, within streamFor of it, may have been sent
	// to a port that an address translator has forgotten: any packet of ours tells
	// the relay where we are now, and who only listens sends none.
	stallAfter = 400 * time.Millisecond
	streamFor  = 5 * time.Second
)

var (
	errProtocol = errors.New("the daemon broke the protocol")
	errSilent   = errors.New("the daemon is silent")
	errLost     = errors.New("the connection was lost")
	errClosed   = errors.New("the session was closed here")
	errFault    = errors.New("the daemon gave up")
)

// Session is one that is open: its calls, its passport, and the connection that
// stands for it now. It is safe for concurrent use; calls run side by side.
type Session struct {
	// immutable
	reach      *reach
	rid        [16]byte
	signer     wire.SigningKey
	rand       io.Reader
	onNotice   func(*Session, call.Notice)
	onPassport func(*passport.Passport)
	onReceipt  func(report.Receipt) // may be nil

	ctx        context.Context // ends with Close
	leave      context.CancelFunc
	done       chan struct{} // closed when the session has ended
	goroutines sync.WaitGroup

	mu       sync.Mutex // guards what is below, and every link's and call's state
	link     *link      // nil while none stands
	linked   chan struct{}
	daemon   wireKeys // of the newest connection
	passport *passport.Passport
	deadline time.Time // by this machine's monotonic clock
	calls    map[call.ID]*pending
	entered  uint64 // counts calls, so that the oldest can be told
	err      error  // why the session ended
	closing  bool
}

// wireKeys is what a session knows of its newest connection while none stands.
type wireKeys struct {
	id    [16]byte
	words []byte
}

func newSession(r *reach, a arrival) *Session {
	cfg := r.cfg
	s := &Session{
		reach: r, rid: cfg.Handle.RID, signer: r.signer, rand: cfg.Rand,
		onNotice: cfg.OnNotice, onPassport: cfg.OnPassport, onReceipt: cfg.OnReceipt,
		done: make(chan struct{}), linked: make(chan struct{}),
		passport: a.passport, calls: make(map[call.ID]*pending),
	}
	s.ctx, s.leave = context.WithCancel(context.Background())
	s.adopt(newLink(s, a))
	return s
}

// adopt makes the link the one that stands; s.mu is held, or nobody has s yet.
func (s *Session) adopt(l *link) {
	s.link, s.daemon = l, wireKeys{id: l.conn.ID(), words: l.conn.SessionWords()}
	s.deadline = time.Now().Add(l.conn.Remaining())
	close(s.linked)
	s.linked = make(chan struct{})
}

func (s *Session) start() {
	l := s.link
	l.start()
	s.goroutines.Go(func() { s.stand(l) })
}

// Passport is what may be called, as the daemon last signed it.
func (s *Session) Passport() *passport.Passport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passport
}

// Words are the four session words, to be compared with the issuer (§10): those
// of the newest connection.
func (s *Session) Words() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return handle.SessionWords(s.daemon.words)
}

// Remaining is how long the session still lasts, by what the daemon said of
// it; a client never refuses by it.
func (s *Session) Remaining() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, time.Until(s.deadline))
}

// Away reports whether no connection stands just now; another is being made.
func (s *Session) Away() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link == nil && s.err == nil
}

// Way is how the relay is reached just now: "quic", and where that cannot be "tcp"
// or "proxy"; empty while no connection stands.
func (s *Session) Way() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return ""
	}
	return s.link.rung.String()
}

// Done is closed when the session has ended: with its connection, unless
// [Config.Redial] is set.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why it ended, an *OverError where the daemon said so; nil before.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close leaves the session: running calls are cut. It returns when every
// goroutine has.
func (s *Session) Close() error {
	s.mu.Lock()
	first := !s.closing && s.err == nil
	s.closing = true
	l := s.link
	s.mu.Unlock()
	if first && l != nil {
		l.sayGoodbye()
	}
	s.leave()
	s.goroutines.Wait()
	return nil
}

// stand keeps the session on a connection until it ends.
func (s *Session) stand(l *link) {
	var a absence
	for {
		if better := s.await(l); better != nil {
			l, a = better, absence{} // nothing was away
			continue
		}
		if why := s.final(l); why != nil {
			l.hangUp()
			s.end(why)
			return
		}
		next, err := s.redial(l, &a)
		if err != nil {
			l.hangUp()
			s.end(err)
			return
		}
		l = next
	}
}

// await returns when something has to be done about the link: nil where it is lost
// or in doubt, and otherwise the better one that the calls have gone over to.
func (s *Session) await(l *link) *link {
	up := s.climb(l)
	better := up.better
	for {
		select {
		case <-l.done:
		case <-l.doubt:
			if !s.reach.cfg.Redial {
				continue
			}
		case <-s.ctx.Done():
		case next := <-better:
			if next == nil {
				better = nil // the link says what has become of it
				continue
			}
			up.giveUp()
			return next
		}
		return up.stop()
	}
}

// final is why the session ends with this link; nil while it does not.
func (s *Session) final(l *link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	over, isOver := errors.AsType[*OverError](l.err)
	switch {
	case isOver:
		return over
	case s.closing:
		return errClosed
	case errors.Is(l.err, errProtocol): // no network did that, and another one helps nothing
		return l.err
	case l.err != nil && !s.reach.cfg.Redial:
		return fmt.Errorf("%w: %w", errLost, l.err)
	}
	return nil
}

// end fails whatever still waits. Output without END, and a connection without
// CLOSE, is cut: never taken for complete.
func (s *Session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.cutAll(err)
	close(s.done)
}

// cutAll cuts every call; s.mu is held.
func (s *Session) cutAll(err error) {
	for _, p := range s.calls {
		p.cut(err)
	}
	clear(s.calls)
}

// takePassport replaces the passport by a newer one. The first of a connection
// may be the one that is known.
func (s *Session) takePassport(p *passport.Passport, first bool) error {
	s.mu.Lock()
	before := s.passport
	if p.Serial < before.Serial || p.Serial == before.Serial && !first {
		s.mu.Unlock()
		return fmt.Errorf("%w: passport %d after %d", errProtocol, p.Serial, before.Serial)
	}
	s.passport = p
	if !first {
		s.deadline = s.deadline.Add(p.Expires.Sub(before.Expires))
	}
	s.mu.Unlock()
	if p.Serial > before.Serial && s.onPassport != nil {
		s.onPassport(p)
	}
	return nil
}

func (s *Session) takeNotice(body []byte) error {
	n, err := call.ParseNotice(body)
	if err != nil {
		return err
	}
	if n.Kind == call.NoticeReason {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p := s.calls[n.ID]; p != nil {
			p.reason = n.Text
		}
		return nil
	}
	s.mu.Lock()
	p := s.calls[n.ID]
	s.mu.Unlock()
	switch {
	case p != nil && p.onNotice != nil:
		p.onNotice(n)
	case s.onNotice != nil:
		s.onNotice(s, n)
	}
	return nil
}

// errAway: no connection stood for as long as a call waits for one.
var errAway = fmt.Errorf("%w, and there is no other yet", errLost)

// ready is a connection that stands, and a challenge young enough to call with:
// after a pause that takes one round trip, and while no connection stands it
// waits for one, but not for ever.
func (s *Session) ready(ctx context.Context) (*link, call.Challenge, error) {
	late := time.NewTimer(awayFor)
	defer late.Stop()
	var asked *link
	for {
		s.mu.Lock()
		l, linked, err := s.link, s.linked, s.err
		var newest challenge
		var fresh chan struct{}
		if l != nil {
			newest, fresh = l.newest, l.fresh
		}
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, call.Challenge{}, err
		case l != nil && newest.age() < staleAfter:
			return l, newest.value, nil
		case l != nil && asked != l:
			asked = l
			if err := l.ping(); err != nil {
				l.abandon(err)
			}
		}
		select {
		case <-fresh:
		case <-linked:
		case <-s.done:
		case <-late.C:
			return nil, call.Challenge{}, errAway
		case <-ctx.Done():
			return nil, call.Challenge{}, context.Cause(ctx)
		}
	}
}
