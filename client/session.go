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
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/report"
)

// The rhythm of a connection (wire/README.md §7).
const (
	pingRunning = 3 * time.Second  // while a call runs or waits; idle, the daemon pings
	deadRunning = 15 * time.Second // silence that ends the connection
	deadIdle    = 60 * time.Second
	staleAfter  = 5 * time.Second        // a newest challenge older than this needs a PING first
	closeGrace  = 250 * time.Millisecond // from CLOSE to the reset
)

var (
	errProtocol = errors.New("the daemon broke the protocol")
	errSilent   = errors.New("the daemon is silent")
	errLost     = errors.New("the connection was lost")
	errClosed   = errors.New("the session was closed here")
)

// Session is one connection to a session that is open. It is safe for
// concurrent use; calls run side by side.
type Session struct {
	// immutable
	conn       *channel.Conn
	rid        [16]byte
	signer     wire.SigningKey
	rand       io.Reader
	onNotice   func(*Session, call.Notice)
	onPassport func(*passport.Passport)
	onReceipt  func(report.Receipt) // may be nil

	done       chan struct{} // closed when the connection has ended
	goroutines sync.WaitGroup
	wake       chan struct{} // something to answer; capacity 1

	mu        sync.Mutex // guards what is below
	passport  *passport.Passport
	deadline  time.Time // by this machine's monotonic clock
	newest    challenge
	fresh     chan struct{} // closed and replaced when newest is
	calls     map[call.ID]*pending
	pings     [][8]byte // the daemon's, to be answered
	heard     time.Time // of any record
	err       error     // why the connection ended
	closeSent bool
}

// challenge is one the daemon issued, and when it came.
type challenge struct {
	value call.Challenge
	came  time.Time
}

func newSession(cfg *Config, conn *channel.Conn, signer wire.SigningKey) *Session {
	now := time.Now()
	return &Session{
		conn: conn, rid: cfg.Handle.RID, signer: signer, rand: cfg.Rand,
		onNotice: cfg.OnNotice, onPassport: cfg.OnPassport, onReceipt: cfg.OnReceipt,
		done: make(chan struct{}), wake: make(chan struct{}, 1), fresh: make(chan struct{}),
		deadline: now.Add(conn.Remaining()), heard: now,
		newest: challenge{value: conn.Challenge(), came: now},
		calls:  make(map[call.ID]*pending),
	}
}

func (s *Session) start() {
	s.goroutines.Go(s.read)
	s.goroutines.Go(s.answer)
	s.goroutines.Go(s.keepAlive)
}

// Passport is what may be called, as the daemon last signed it.
func (s *Session) Passport() *passport.Passport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passport
}

// Words are the four session words, to be compared with the issuer (§10).
func (s *Session) Words() []string { return handle.SessionWords(s.conn.SessionWords()) }

// Remaining is how long the session still lasts, by what the daemon said of
// it; a client never refuses by it.
func (s *Session) Remaining() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, time.Until(s.deadline))
}

// Done is closed when the connection has ended.
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
	first := !s.closeSent && s.err == nil
	s.closeSent = true
	s.mu.Unlock()
	if first {
		late := time.AfterFunc(closeGrace, s.conn.Reset)
		defer late.Stop()
		bye := call.Close{Cause: call.Closed}
		if s.conn.Write(channel.TypeClose, bye.Append(nil)) == nil && s.conn.CloseWrite() == nil {
			<-s.done // the daemon hangs up, or the timer does
		}
	}
	s.conn.Reset()
	s.goroutines.Wait()
	return nil
}

// read takes records until the connection ends.
func (s *Session) read() {
	for {
		t, body, err := s.conn.Read()
		if err == nil {
			err = s.take(t, body)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// end fails whatever still waits. Output without END, and a connection without
// CLOSE, is cut: never taken for complete.
func (s *Session) end(err error) {
	s.conn.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	over, ok := errors.AsType[*OverError](err)
	switch {
	case ok:
		s.err = over
	case s.closeSent:
		s.err = errClosed
	case s.err == nil:
		s.err = fmt.Errorf("%w: %w", errLost, err)
	}
	for _, p := range s.calls {
		p.cut(s.err)
	}
	clear(s.calls)
	close(s.done)
}

// abandon ends a connection that is of no use any more; read does the rest.
func (s *Session) abandon(why error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", errLost, why)
	}
	s.mu.Unlock()
	s.conn.Reset()
}

func (s *Session) take(t channel.Type, body []byte) error {
	s.mu.Lock()
	s.heard = time.Now()
	s.mu.Unlock()
	switch t {
	case channel.TypeOut:
		return s.takeOutput(body)
	case channel.TypeEnd:
		return s.takeEnd(body)
	case channel.TypePing:
		p, err := call.ParsePing(body)
		if err != nil {
			return err
		}
		return s.takePing(p)
	case channel.TypePong:
		p, err := call.ParsePong(body)
		if err != nil {
			return err
		}
		s.adopt(p.Challenge)
		return nil
	case channel.TypeNotice:
		return s.takeNotice(body)
	case channel.TypePassport:
		return s.takePassport(body)
	case channel.TypeClose:
		c, err := call.ParseClose(body)
		if err != nil {
			return err
		}
		return &OverError{Cause: c.Cause, Reason: c.Text}
	case channel.TypeError:
		f, err := call.ParseFault(body)
		if err != nil {
			return err
		}
		return fmt.Errorf("the daemon gave up: %s", f.Text)
	}
	return fmt.Errorf("%w: record %d", errProtocol, t)
}

// maxUnanswered bounds the PINGs that wait for their answer to be written.
const maxUnanswered = 16

func (s *Session) takePing(p call.Ping) error {
	s.adopt(p.Challenge)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pings) == maxUnanswered {
		return fmt.Errorf("%w: %d pings and no time to answer", errProtocol, maxUnanswered)
	}
	s.pings = append(s.pings, p.Nonce)
	s.signal()
	return nil
}

// adopt takes the daemon's newest challenge (§7).
func (s *Session) adopt(c call.Challenge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = challenge{value: c, came: time.Now()}
	close(s.fresh)
	s.fresh = make(chan struct{})
}

// takePassport shows and uses a passport only once its signature, its session,
// its subject and its daemon are right. A newer one replaces it.
func (s *Session) takePassport(body []byte) error {
	signed := append(passport.Signed(nil), body...)
	p, err := passport.Verify(signed, s.conn.DaemonKey())
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if err := p.CheckFor(s.rid, s.signer.Public()); err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if p.Daemon != channel.Fingerprint(s.conn.DaemonKey()) {
		return fmt.Errorf("%w: the passport is from another daemon", errProtocol)
	}
	s.mu.Lock()
	before := s.passport
	if before != nil && p.Serial <= before.Serial {
		s.mu.Unlock()
		return fmt.Errorf("%w: passport %d after %d", errProtocol, p.Serial, before.Serial)
	}
	s.passport = p
	if before != nil {
		s.deadline = s.deadline.Add(p.Expires.Sub(before.Expires))
	}
	s.mu.Unlock()
	if before != nil && s.onPassport != nil {
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

// signal wakes answer; s.mu is held.
func (s *Session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// answer writes what the reader owes the daemon, so that reading never waits
// for writing: two ends that did would stand still for ever.
func (s *Session) answer() {
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		pings, windows := s.owed()
		for _, nonce := range pings {
			if s.conn.Write(channel.TypePong, call.Pong{Nonce: nonce}.Append(nil)) != nil {
				return // the reader meets the same end
			}
		}
		for _, w := range windows {
			if s.conn.Write(channel.TypeWindow, w.Append(nil)) != nil {
				return
			}
		}
	}
}

func (s *Session) owed() (pings [][8]byte, windows []call.Window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pings, s.pings = s.pings, nil
	for id, p := range s.calls {
		if w, due := p.window(id); due {
			windows = append(windows, w)
		}
	}
	return pings, windows
}

// keepAlive pings while something runs, and gives a silent daemon up.
func (s *Session) keepAlive() {
	tick := time.NewTicker(pingRunning)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case now := <-tick.C:
			s.mu.Lock()
			busy, silence := len(s.calls) > 0, now.Sub(s.heard)
			s.mu.Unlock()
			if silence > deadIdle || busy && silence > deadRunning {
				s.abandon(errSilent)
				return
			}
			if !busy {
				continue
			}
			if err := s.ping(); err != nil {
				s.abandon(err) // nobody would notice a silent daemon from here on
				return
			}
		}
	}
}

func (s *Session) ping() error {
	var p call.Ping
	if _, err := io.ReadFull(s.rand, p.Nonce[:]); err != nil {
		return fmt.Errorf("drawing a nonce: %w", err)
	}
	return s.conn.Write(channel.TypePing, p.Append(nil))
}

// current is a challenge young enough to call with; after a pause it takes one
// round trip to get one.
func (s *Session) current(ctx context.Context) (call.Challenge, error) {
	asked := false
	for {
		s.mu.Lock()
		newest, fresh, err := s.newest, s.fresh, s.err
		s.mu.Unlock()
		if err != nil {
			return call.Challenge{}, err
		}
		if time.Since(newest.came) < staleAfter {
			return newest.value, nil
		}
		if !asked {
			if err := s.ping(); err != nil {
				return call.Challenge{}, fmt.Errorf("%w: %w", errLost, err)
			}
			asked = true
		}
		select {
		case <-fresh:
		case <-s.done:
		case <-ctx.Done():
			return call.Challenge{}, context.Cause(ctx)
		case <-time.After(deadRunning):
			s.abandon(errSilent)
		}
	}
}
