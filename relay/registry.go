package relay

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// registry is every session that stands here, in memory only.
type registry struct {
	mu       sync.Mutex
	sessions map[wire.RendezvousID]*registered
	held     map[wire.TokenID]int
	daemons  map[*standing]*holding
	nextLeg  uint64
	legs     int // that are spliced
	draining bool
	decoys   [decoys]registered // never changed
}

// decoys is how many sessions there are that nobody can join. One of them is looked
// at in the place of one that is not there: reading a session that has not been
// read lately costs what a fifth of a percent of a verification does, and would tell.
const decoys = 1024

// holding is what a daemon that stands has here.
type holding struct {
	sessions map[wire.RendezvousID]*registered
	legs     int
}

// registered is one session: who answers, who may join, until when.
type registered struct {
	rid    wire.RendezvousID
	daemon *standing
	join   ed25519.PublicKey
	until  time.Time
	legs   []*leg // oldest first
}

// leg is one client that was joined.
type leg struct {
	number uint64
	conn   tunnel.Conn
	kept   bool
	ended  bool

	forwarded atomic.Uint64 // bytes, both ways
}

func newRegistry() *registry {
	g := &registry{sessions: make(map[wire.RendezvousID]*registered), held: make(map[wire.TokenID]int), daemons: make(map[*standing]*holding)}
	for i := range g.decoys {
		g.decoys[i].join = bytes.Clone(nobody)
	}
	return g
}

// register enters a verified registration. A second one for the same session
// moves it: its daemon has connected anew and proved the same keys. The legs on
// its other connection are returned: that may lead nowhere, and has to be closed
// outside this lock.
func (g *registry) register(d *standing, m wire.Register, until time.Time) (status wire.RegisterStatus, left []tunnel.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.sessions[m.RID]; old != nil {
		g.remove(old)
		for _, l := range old.legs {
			if old.daemon != d {
				left = append(left, l.conn)
			}
		}
	}
	if g.held[d.token] >= d.account.sessions() {
		return wire.RegisterFull, left
	}
	h := g.daemons[d]
	if h == nil {
		return wire.RegisterRefused, left // it has gone meanwhile
	}
	g.held[d.token]++
	s := &registered{rid: m.RID, daemon: d, join: m.JoinKey, until: until}
	g.sessions[m.RID], h.sessions[m.RID] = s, s
	return wire.Registered, left
}

// unregister takes a session off, if it is this daemon's.
func (g *registry) unregister(d *standing, rid wire.RendezvousID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[rid]; s != nil && s.daemon == d {
		g.remove(s)
	}
}

// leave takes off every session of a daemon that has gone. Its legs end with
// its connection.
func (g *registry) leave(d *standing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.daemons[d]; h != nil { // its own alone: others' may be many
		for _, s := range h.sessions {
			g.remove(s)
		}
	}
	delete(g.daemons, d)
}

func (g *registry) remove(s *registered) {
	delete(g.sessions, s.rid)
	if h := g.daemons[s.daemon]; h != nil {
		delete(h.sessions, s.rid)
	}
	if g.held[s.daemon.token]--; g.held[s.daemon.token] == 0 {
		delete(g.held, s.daemon.token)
	}
}

// find looks a session up; one whose time has passed is gone. In the place of one
// that is not there it returns a decoy.
func (g *registry) find(rid wire.RendezvousID, now time.Time) (*registered, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sessions[rid]
	if s != nil && now.After(s.until) {
		g.remove(s)
		s = nil
	}
	if s == nil {
		return &g.decoys[binary.BigEndian.Uint16(rid[:])%decoys], false
	}
	return s, true
}

// isDraining is asked before any session is looked up.
func (g *registry) isDraining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

// enter adds a leg. Beyond [wire.LegsPerSession] the oldest that is not kept
// has to go: a client that has proved itself cannot be displaced by one that
// has not. That leg's connection is returned: closing may wait for its peer, and
// nobody waits for that under this lock.
func (g *registry) enter(s *registered, conn tunnel.Conn) (l *leg, superseded tunnel.Conn, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.rid] != s || g.draining {
		return nil, nil, false
	}
	g.nextLeg++
	l = &leg{number: g.nextLeg, conn: conn}
	s.legs = append(s.legs, l)
	g.legs++
	if h := g.daemons[s.daemon]; h != nil {
		h.legs++
	}
	if len(s.legs) > wire.LegsPerSession {
		for _, old := range s.legs {
			if !old.kept {
				superseded = old.conn
				s.drop(old)
				break
			}
		}
	}
	return l, superseded, true
}

// exit forgets a leg that has ended.
func (g *registry) exit(s *registered, l *leg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.drop(l)
	if l.ended {
		return
	}
	l.ended = true
	g.legs--
	if h := g.daemons[s.daemon]; h != nil {
		h.legs--
	}
}

// drop leaves nothing of the leg in the array behind either: it holds a connection.
func (s *registered) drop(l *leg) {
	if i := slices.Index(s.legs, l); i >= 0 {
		s.legs = slices.Delete(s.legs, i, i+1)
	}
}

// keep marks a leg as its daemon asks, up to [wire.KeptPerSession].
func (g *registry) keep(d *standing, m wire.Kept) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sessions[m.RID]
	if s == nil || s.daemon != d {
		return
	}
	kept := 0
	for _, l := range s.legs {
		if l.kept {
			kept++
		}
	}
	for _, l := range s.legs {
		if l.number == m.Leg && kept < wire.KeptPerSession {
			l.kept = true
		}
	}
}

// drain refuses new legs from here on.
func (g *registry) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
}

// arrive enters a daemon that has proved its token.
func (g *registry) arrive(d *standing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.daemons[d] = &holding{sessions: make(map[wire.RendezvousID]*registered)}
}

// byToken is every daemon that stands.
func (g *registry) byToken() map[wire.TokenID][]*standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[wire.TokenID][]*standing)
	for d := range g.daemons {
		all[d.token] = append(all[d.token], d)
	}
	return all
}

// idle is every daemon without a running leg.
func (g *registry) idle() (idle []*standing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for d, h := range g.daemons {
		if h.legs == 0 {
			idle = append(idle, d)
		}
	}
	return idle
}

func (g *registry) legsStand() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.legs > 0
}

// sweep forgets sessions whose time has passed and that nobody asked for.
func (g *registry) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if now.After(s.until) {
			g.remove(s)
		}
	}
}

func (g *registry) counts() (daemons, sessions, legs int, draining bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.daemons), len(g.sessions), g.legs, g.draining
}
