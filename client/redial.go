package client

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// How a lost connection is made again (wire/README.md §8).
const (
	doubtAfter  = 5 * time.Second  // silence, or an unanswered PING, before a second connection is tried
	awayFor     = 90 * time.Second // how long a call waits for a connection: the daemon's 15 s and 60 s, and a margin
	attemptFor  = 15 * time.Second // one attempt may take
	steadyAfter = 5 * time.Second  // a connection that stood for so long ends an absence
	redialFirst = 50 * time.Millisecond
	redialMost  = 2 * time.Second
	patientFor  = 5 * time.Minute // then attempts are redialRare apart
	redialRare  = 30 * time.Second
	// A relay that answers and does not know the session may have been restarted:
	// the daemon is on its way.
	redialRefused = 400 * time.Millisecond
	// hardMargin is how long after the session's hard limit it may be refused
	// before it is taken for over: the two clocks may differ.
	hardMargin = 5 * time.Minute
)

// errLively says that the first connection answers again, so that no other is
// needed.
var errLively = errors.New("the connection is alive")

// absence is how long there has been no connection worth the name. One that is
// lost before it is steady does not end it: calls do not wait for ever behind
// connections that are made and lost at once, nor are those made without a pause.
type absence struct {
	began time.Time
	pause time.Duration
}

// begins notes that the link is lost, and reports whether that begins an absence.
func (a *absence) begins(l *link, now time.Time) bool {
	if !a.began.IsZero() && now.Sub(l.made) < steadyAfter {
		return false
	}
	*a = absence{began: now, pause: redialFirst}
	return true
}

// rest waits before the next attempt.
func (a *absence) rest(ctx context.Context, refused bool) error {
	pause := a.pause
	switch {
	case time.Since(a.began) > patientFor:
		pause = redialRare
	case refused:
		pause = min(pause, redialRefused)
	}
	a.pause = min(2*a.pause, redialMost)
	select {
	case <-time.After(pause/2 + rand.N(pause/2)):
		return nil
	case <-ctx.Done():
		return errClosed
	}
}

// redial returns the link that the session goes on with: another one, or l
// itself where that comes back to life. The error is final.
func (s *Session) redial(l *link, a *absence) (*link, error) {
	began := time.Now()
	if !a.begins(l, began) {
		s.cutLong(a.began)
		if err := a.rest(s.ctx, false); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	if errors.Is(l.err, errFault) {
		s.cutAll(l.err) // what we said of them was not believed
	}
	lost := l.err
	s.mu.Unlock()
	if lost == nil {
		lost = errSilent
	}
	told := false
	for {
		next, err := s.again(l, began)
		switch {
		case errors.Is(err, errLively):
			s.tell(told, nil)
			return l, nil
		case err == nil:
			s.tell(told, nil)
			return next, nil
		case s.hopeless(err, a.began):
			return nil, err
		}
		s.reach.cfg.Logger.Debug("connecting again", "error", err)
		if s.Away() && !told {
			told = true
			s.tell(true, lost)
		}
		s.cutLong(a.began)
		if err := a.rest(s.ctx, errors.Is(err, wire.ErrRefused)); err != nil {
			return nil, err
		}
	}
}

func (s *Session) tell(worth bool, lost error) {
	if worth && s.reach.cfg.OnConnection != nil {
		s.reach.cfg.OnConnection(lost)
	}
}

// hopeless reports whether another attempt cannot go better: the session is
// over, or whoever answers is somebody else, or no relay has known it for as
// long as it can last.
func (s *Session) hopeless(err error, began time.Time) bool {
	if _, over := errors.AsType[*OverError](err); over || errors.Is(err, ErrWrongDaemon) || errors.Is(err, errClosed) {
		return true
	}
	hard := s.reach.cfg.Handle.HardLimit.Add(hardMargin)
	return errors.Is(err, wire.ErrRefused) && time.Since(began) > retryFor && time.Now().After(hard)
}

// cutLong cuts the calls that have been without a connection for too long: the
// daemon goes on with them no longer. So that none waits for ever, whatever may
// still be told of it.
func (s *Session) cutLong(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil && time.Since(began) > awayFor {
		s.cutAll(errAway)
	}
}

// again tries once to replace the link.
func (s *Session) again(l *link, began time.Time) (*link, error) {
	ctx, stop := context.WithTimeout(s.ctx, attemptFor)
	defer stop()
	r := *s.reach
	r.beforeFinished = func() error {
		if l.lively(began) {
			return errLively
		}
		return nil
	}
	var listed []*pending
	r.takeOver = func() ([16]byte, []channel.Resume) {
		var calls []channel.Resume
		calls, listed = s.unfinished(l)
		return s.daemon.id, calls
	}
	if l.lively(began) {
		return l, errLively
	}
	r.relays = withLast(r.relays, l.relay)
	a, err := r.attempt(ctx)
	if err != nil {
		return nil, err
	}
	return s.goOn(a, listed)
}

// withLast puts one of the relays last: the one that was just lost.
func withLast(relays []wire.Relay, last wire.Relay) []wire.Relay {
	var others, those []wire.Relay
	for _, r := range relays {
		if r.Address == last.Address {
			those = append(those, r)
		} else {
			others = append(others, r)
		}
	}
	return append(others, those...)
}

// unfinished ends the link and lists the calls that have no END, the oldest
// first. Nothing more comes of the link after it.
func (s *Session) unfinished(l *link) (calls []channel.Resume, listed []*pending) {
	l.abandon(errSilent)
	l.hangUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.calls {
		if !p.ended {
			listed = append(listed, p)
		}
	}
	slices.SortFunc(listed, func(a, b *pending) int { return cmp.Compare(a.number, b.number) })
	listed = listed[:min(len(listed), channel.MaxResume)]
	for _, p := range listed {
		calls = append(calls, channel.Resume{ID: p.id, Stdout: p.came[0], Stderr: p.came[1]})
	}
	return calls, listed
}

// errCrowded is why a call is cut that did not fit into the list.
var errCrowded = errors.New("the connection was lost with more calls under way than can go on")

// goOn puts the session on a new connection: the listed calls go on there.
func (s *Session) goOn(a arrival, listed []*pending) (*link, error) {
	l := newLink(s, a)
	if err := s.takePassport(a.passport, true); err != nil {
		a.conn.Reset()
		return nil, err
	}
	s.mu.Lock()
	s.adopt(l)
	var cancelled []call.ID
	for id, p := range s.calls {
		if !slices.Contains(listed, p) {
			p.cut(errCrowded)
			delete(s.calls, id)
			continue
		}
		p.moveTo(l)
		if p.cancelled {
			cancelled = append(cancelled, id)
		}
	}
	l.signal()
	s.mu.Unlock()
	l.start()
	for _, id := range cancelled {
		_ = a.conn.Write(channel.TypeCancel, call.AppendCancel(nil, id)) // where it fails, the next connection's list has it again
	}
	return l, nil
}
