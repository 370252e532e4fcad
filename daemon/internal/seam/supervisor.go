package seam

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"openscope/wire"
)

// A net half that has ended is started again after restartMin, doubling up to
// restartMax while none of them lives for as long as settled.
const (
	restartMin = 50 * time.Millisecond
	restartMax = 2 * time.Second
	settled    = 10 * time.Second
)

// registerWait is how long a session waits for a net half to ask a relay. What
// that waits for the relay is its own.
const registerWait = 6 * time.Second

// Running is a net half that was started.
type Running struct {
	Conn net.Conn
	// PID is that of its process; 0 for one in this process.
	PID int
	// Stop waits for its end once the pipe is closed, makes it end where it does
	// not, and says how it ended.
	Stop func() error
}

// Config is what a supervisor is told.
type Config struct {
	Core   Authority
	Setup  Setup
	Start  func(ctx context.Context) (Running, error)
	Logger *slog.Logger
}

// Supervisor is the core's net half: it has one run, starts another when that
// ends, and tells it anew of every session there is.
type Supervisor struct {
	cfg Config

	mu     sync.Mutex    // guards what is below
	link   *link         // nil while there is none
	up     chan struct{} // closed and replaced when there is one
	served map[wire.RendezvousID]Served
	stands map[wire.RendezvousID]bool
	state  State
}

// State is how the net half is, for a person.
type State struct {
	PID      int // of its process; 0 where there is none
	Held     Confinement
	Restarts int
	Problem  string // why there is none
	Relays   []RelayState
}

var _ Network = (*Supervisor)(nil)

// NewSupervisor starts nothing before [Supervisor.Run].
func NewSupervisor(cfg Config) *Supervisor {
	return &Supervisor{
		cfg: cfg, up: make(chan struct{}),
		served: make(map[wire.RendezvousID]Served), stands: make(map[wire.RendezvousID]bool),
		state: State{Problem: "not started yet", Relays: unreached(cfg.Setup.Relays, "not tried yet")},
	}
}

func unreached(relays []wire.Relay, problem string) []RelayState {
	states := make([]RelayState, len(relays))
	for i, r := range relays {
		states[i] = RelayState{Address: r.Address, Problem: problem}
	}
	return states
}

// Run has a net half run until the context ends; it returns when that has ended
// too, and none of its connections is attached.
func (s *Supervisor) Run(ctx context.Context) {
	backoff := restartMin
	for ctx.Err() == nil {
		began := time.Now()
		err := s.runOne(ctx)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Logger.Warn("the net half has ended, and is started again", "error", err)
		if time.Since(began) > settled {
			backoff = restartMin
		}
		select {
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, restartMax)
	}
}

// runOne starts a net half and serves it to its end.
func (s *Supervisor) runOne(ctx context.Context) error {
	running, err := s.cfg.Start(ctx)
	if err != nil {
		s.ended(err)
		return err
	}
	l := newLink(running.Conn, s.cfg.Core, s.cfg.Setup.Relays, s.cfg.Logger, s.told)
	stop := context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })
	defer stop()
	s.began(l, running.PID)
	err = l.run()
	err = why(err, running.Stop())
	s.ended(err)
	return err
}

// why is how a net half ended: by what broke the pipe, or by its own end.
func why(pipe, own error) error {
	if own != nil && !errors.Is(pipe, errMessage) {
		return own
	}
	if errors.Is(pipe, io.EOF) {
		return errors.New("it has let go of its pipe")
	}
	return pipe
}

// began tells a net half of everything, before anybody else can tell it more.
func (s *Supervisor) began(l *link, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.state.PID, s.state.Problem = l, pid, ""
	s.state.Relays = unreached(s.cfg.Setup.Relays, "not tried yet")
	_ = l.send(s.cfg.Setup.append(frame(kindSetup, 0, 1<<10)), false)
	for _, rid := range slices.Collect(maps.Keys(s.stands)) {
		_ = l.send(frame(kindStand, 0, 16).fixed(rid[:]), false)
	}
	for _, served := range s.served {
		_, _, _ = l.ask(kindServe, served.append(frame(kindServe, 0, 256)), false) // nobody waits for the answer
	}
	close(s.up)
	s.up = make(chan struct{})
}

func (s *Supervisor) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const problem = "the daemon's net half is being started"
	s.link, s.state.PID, s.state.Held = nil, 0, Confinement{}
	s.state.Restarts++
	s.state.Problem = "it has ended"
	if err != nil {
		s.state.Problem = err.Error()
	}
	s.state.Relays = unreached(s.cfg.Setup.Relays, problem)
}

// told keeps what the net half says of itself.
func (s *Supervisor) told(held *Confinement, relays []RelayState) {
	s.mu.Lock()
	if held != nil {
		s.state.Held = *held
	}
	if relays != nil {
		s.state.Relays = relays
	}
	pid := s.state.PID
	s.mu.Unlock()
	if held != nil {
		s.cfg.Logger.Info("the net half runs", "pid", pid, "landlock", held.Landlock, "no_new_privileges", held.NoNewPrivileges, "syscalls", held.Syscalls)
	}
}

// current is the link there is, if there is one, and what is closed when there
// is another.
func (s *Supervisor) current() (*link, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link, s.up
}

// Register makes the session known to the relays, and to those of every net half
// to come.
func (s *Supervisor) Register(ctx context.Context, rid wire.RendezvousID) ([]wire.Relay, error) {
	if len(s.cfg.Setup.Relays) == 0 {
		return nil, errors.New("no relay is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	s.mu.Lock()
	s.stands[rid] = true
	s.mu.Unlock()
	for {
		l, up := s.current()
		if l != nil {
			relays, problem, err := l.register(ctx, rid)
			if err == nil {
				return relays, problem
			}
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, errors.New("the daemon's net half does not answer")
		}
	}
}

// Serve begins to answer handshakes for the session. A net half that says nothing
// holds nobody up for longer than [registerWait].
func (s *Supervisor) Serve(served Served) {
	s.mu.Lock()
	s.served[served.RID] = served
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return // the next one is told
	}
	ctx, cancel := context.WithTimeout(context.Background(), registerWait)
	defer cancel()
	_, _ = l.exchange(ctx, nil, kindServe, served.append(frame(kindServe, 0, 256)))
}

// Drop forgets the session.
func (s *Supervisor) Drop(rid wire.RendezvousID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.served, rid)
	delete(s.stands, rid)
	if s.link != nil {
		_ = s.link.send(frame(kindDrop, 0, 16).fixed(rid[:]), false)
	}
}

// Relays tells how each relay is reached.
func (s *Supervisor) Relays() []RelayState { return s.State().Relays }

// State tells how the net half is.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Relays = slices.Clone(state.Relays)
	return state
}

// Try tries one way to one relay, as soon as there is a net half.
func (s *Supervisor) Try(ctx context.Context, relay, rung int) (Tried, error) {
	for {
		l, up := s.current()
		if l != nil {
			return l.try(ctx, relay, rung)
		}
		select {
		case <-up:
		case <-ctx.Done():
			return Tried{}, errors.New(s.State().Problem)
		}
	}
}
