package client

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// link is one connection of a session. What it knows of the other end is
// guarded by the session's lock.
type link struct {
	// immutable
	s     *Session
	conn  *channel.Conn
	relay wire.Relay
	rung  tunnel.Rung
	made  time.Time
	done  chan struct{} // closed when its reader has returned
	doubt chan struct{} // it has been silent; capacity 1
	wake  chan struct{} // something to answer; capacity 1

	goroutines sync.WaitGroup

	// guarded by s.mu
	newest  challenge
	fresh   chan struct{} // closed and replaced when newest is
	pings   [][8]byte     // the daemon's, to be answered
	heardOf []call.Window // last acknowledgements of calls that have ended
	heard   time.Time     // of any record
	flowed  time.Time     // of a call's output
	asked   time.Time     // of our oldest PING since; zero where there is none
	err     error         // why it ended
}

// challenge is one the daemon issued, and when it came.
type challenge struct {
	value call.Challenge
	came  time.Time
}

// age counts the time that the machine slept, which its monotonic clock does
// not: the daemon's clock went on.
func (c challenge) age() time.Duration {
	now := time.Now()
	return max(now.Sub(c.came), now.Round(0).Sub(c.came.Round(0)))
}

func newLink(s *Session, a arrival) *link {
	now := time.Now()
	return &link{
		s: s, conn: a.conn, relay: a.relay, rung: a.rung, made: now, heard: now, newest: challenge{value: a.conn.Challenge(), came: now},
		done: make(chan struct{}), doubt: make(chan struct{}, 1), wake: make(chan struct{}, 1), fresh: make(chan struct{}),
	}
}

func (l *link) start() {
	l.goroutines.Go(l.read)
	l.goroutines.Go(l.answer)
	l.goroutines.Go(l.keepAlive)
}

// hangUp ends the connection and returns when nothing more comes of it.
func (l *link) hangUp() {
	l.conn.Reset()
	l.goroutines.Wait()
}

// read takes records until the connection ends.
func (l *link) read() {
	for {
		t, body, err := l.conn.Read()
		if err != nil {
			if errors.Is(err, channel.ErrPeer) {
				err = breach(err)
			}
			l.end(err)
			return
		}
		if err := l.take(t, body); err != nil {
			l.end(breach(err))
			return
		}
	}
}

// breach is why a record that was the daemon's own ends the connection. But for
// its two ways to say so itself, it has broken the protocol.
func breach(err error) error {
	if _, over := errors.AsType[*OverError](err); over || errors.Is(err, errFault) || errors.Is(err, errProtocol) {
		return err
	}
	return fmt.Errorf("%w: %w", errProtocol, err)
}

func (l *link) end(err error) {
	l.conn.Reset()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	if l.s.link == l {
		l.s.link = nil
	}
	close(l.done)
}

// abandon ends a connection that is of no use any more; read does the rest.
func (l *link) abandon(why error) {
	l.s.mu.Lock()
	if l.err == nil {
		l.err = why
	}
	l.s.mu.Unlock()
	l.conn.Reset()
}

// sayGoodbye ends the session in order.
func (l *link) sayGoodbye() {
	late := time.AfterFunc(closeGrace, l.conn.Reset)
	defer late.Stop()
	bye := call.Close{Cause: call.Closed}
	if l.conn.Write(channel.TypeClose, bye.Append(nil)) == nil && l.conn.CloseWrite() == nil {
		<-l.done // the daemon hangs up, or the timer does
	}
	l.conn.Reset()
}

func (l *link) take(t channel.Type, body []byte) error {
	l.s.mu.Lock()
	l.heard, l.asked = time.Now(), time.Time{}
	if t == channel.TypeOut {
		l.flowed = l.heard
	}
	l.s.mu.Unlock()
	switch t {
	case channel.TypeOut:
		return l.takeOutput(body)
	case channel.TypeEnd:
		return l.takeEnd(body)
	case channel.TypePing:
		p, err := call.ParsePing(body)
		if err != nil {
			return err
		}
		return l.takePing(p)
	case channel.TypePong:
		p, err := call.ParsePong(body)
		if err != nil {
			return err
		}
		l.adopt(p.Challenge)
		return nil
	case channel.TypeNotice:
		return l.s.takeNotice(body)
	case channel.TypePassport:
		p, err := l.s.reach.verify(l.conn, body)
		if err != nil {
			return err
		}
		return l.s.takePassport(p, false)
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
		return fmt.Errorf("%w: %s", errFault, f.Text)
	}
	return fmt.Errorf("%w: record %d", errProtocol, t)
}

// maxUnanswered bounds the PINGs that wait for their answer to be written.
const maxUnanswered = 16

func (l *link) takePing(p call.Ping) error {
	l.adopt(p.Challenge)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if len(l.pings) == maxUnanswered {
		return fmt.Errorf("%w: %d pings and no time to answer", errProtocol, maxUnanswered)
	}
	l.pings = append(l.pings, p.Nonce)
	l.signal()
	return nil
}

// adopt takes the daemon's newest challenge (§7).
func (l *link) adopt(c call.Challenge) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.newest = challenge{value: c, came: time.Now()}
	close(l.fresh)
	l.fresh = make(chan struct{})
}

// signal wakes answer.
func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// answer writes what the reader owes the daemon, so that reading never waits
// for writing: two ends that did would stand still for ever.
func (l *link) answer() {
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		pings, windows := l.owed()
		for _, nonce := range pings {
			if l.conn.Write(channel.TypePong, call.Pong{Nonce: nonce}.Append(nil)) != nil {
				return // the reader meets the same end
			}
		}
		for _, w := range windows {
			if l.conn.Write(channel.TypeWindow, w.Append(nil)) != nil {
				return
			}
		}
	}
}

func (l *link) owed() (pings [][8]byte, windows []call.Window) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	pings, l.pings = l.pings, nil
	windows, l.heardOf = l.heardOf, nil
	for id, p := range l.s.calls {
		if w, due := p.window(id); p.link == l && due {
			windows = append(windows, w)
		}
	}
	return pings, windows
}

// How often a link's silence is looked at, and how often while output comes.
const (
	lookInterval  = time.Second
	watchInterval = 200 * time.Millisecond
)

// keepAlive pings while something runs, doubts a silent daemon, and gives it up.
func (l *link) keepAlive() {
	look := time.NewTimer(lookInterval)
	defer look.Stop()
	var pinged time.Time
	for {
		select {
		case <-l.done:
			return
		case <-look.C:
		}
		now := time.Now()
		v := l.vitals(now)
		if v.silence > deadIdle || v.busy && v.silence > deadRunning || v.unanswered > deadRunning {
			l.abandon(errSilent)
			return
		}
		if v.busy && v.silence > doubtAfter || v.unanswered > doubtAfter {
			select {
			case l.doubt <- struct{}{}:
			default:
			}
		}
		if v.pingDue(now.Sub(pinged)) {
			pinged = now
			if err := l.ping(); err != nil {
				l.abandon(err) // nobody would notice a silent daemon from here on
				return
			}
		}
		look.Reset(lookInterval)
		if v.streaming {
			look.Reset(watchInterval)
		}
	}
}

// vitals are a link's signs of life.
type vitals struct {
	busy       bool          // a call runs
	streaming  bool          // and its output came just now
	silence    time.Duration // without any record
	unanswered time.Duration // of our oldest PING
}

func (l *link) vitals(now time.Time) vitals {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	v := vitals{busy: len(l.s.calls) > 0, silence: now.Sub(l.heard)}
	if !l.asked.IsZero() {
		v.unanswered = now.Sub(l.asked)
	}
	// A TCP connection is found by its ports: no word of ours helps it.
	v.streaming = v.busy && l.rung == tunnel.QUIC && now.Sub(l.flowed) < streamFor
	return v
}

// pingDue reports whether it is time for a PING, so long after the last one.
func (v vitals) pingDue(since time.Duration) bool {
	if v.streaming && v.silence > stallAfter && since > stallAfter {
		return true
	}
	return (v.busy || v.silence > pingSilent) && since >= pingRunning
}

func (l *link) ping() error {
	var p call.Ping
	if _, err := io.ReadFull(l.s.rand, p.Nonce[:]); err != nil {
		return fmt.Errorf("drawing a nonce: %w", err)
	}
	l.s.mu.Lock()
	if l.asked.IsZero() {
		l.asked = time.Now()
	}
	l.s.mu.Unlock()
	return l.conn.Write(channel.TypePing, p.Append(nil))
}

// lively reports whether anything has come since the given time.
func (l *link) lively(since time.Time) bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.err == nil && l.heard.After(since)
}
