package network

import (
	"context"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"openscope/daemon/internal/seam"
	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// maxUnauthenticated is how many streams may stand before FINISHED; beyond it
// the oldest is dropped (wire/README.md §3).
const maxUnauthenticated = 16

// Half is the half of the daemon that strangers can reach, through a relay. It
// holds the sessions' derived keys and nothing that outlives them.
type Half struct {
	// immutable
	core    seam.Authority
	rand    io.Reader
	roots   *x509.CertPool
	ways    tunnel.Ways
	logger  *slog.Logger
	uplinks []*uplink
	changed func([]seam.RelayState)

	legs sync.WaitGroup // every leg's goroutines

	mu        sync.Mutex // guards what is below
	served    map[wire.RendezvousID]channel.DaemonConfig
	rids      map[wire.RendezvousID]bool // those to stand on the relays
	strangers []*stranger                // unauthenticated legs, oldest first
	up        chan struct{}              // closed and replaced when an uplink comes up
}

// stranger is a leg that has not finished its handshake.
type stranger struct {
	leg   wire.Leg
	shown bool // guarded by Half.mu: its msg1 was made with the handle
}

// Config is what the net half is told.
type Config struct {
	// Relays are the ways out; Roots authenticate one that has no pin, and nil
	// means the system's.
	Relays []wire.Relay
	Roots  *x509.CertPool
	Proxy  seam.Proxy
	// Ways, where set, are the ways to the relays instead of the system's.
	Ways   *tunnel.Ways
	Rand   io.Reader
	Logger *slog.Logger
	// Changed is told how the relays are reached, whenever that changes. It must
	// not block.
	Changed func([]seam.RelayState)
}

// New returns a net half that stands nowhere before [Half.Run].
func New(core seam.Authority, cfg Config) *Half {
	n := &Half{
		core: core, rand: cfg.Rand, roots: cfg.Roots, logger: cfg.Logger, changed: cfg.Changed,
		served: make(map[wire.RendezvousID]channel.DaemonConfig),
		rids:   make(map[wire.RendezvousID]bool),
		up:     make(chan struct{}),
	}
	if n.changed == nil {
		n.changed = func([]seam.RelayState) {}
	}
	n.ways = tunnel.Ways{Proxies: proxies(cfg.Proxy, n.logger), Known: new(tunnel.Known)}
	if cfg.Ways != nil {
		n.ways = *cfg.Ways
	}
	for _, relay := range cfg.Relays {
		n.uplinks = append(n.uplinks, &uplink{net: n, relay: relay, problem: "not tried yet"})
	}
	return n
}

// Run keeps every uplink up until the context ends; it returns when all legs
// have ended too.
func (n *Half) Run(ctx context.Context) {
	var uplinks sync.WaitGroup
	for _, u := range n.uplinks {
		uplinks.Go(func() { u.run(ctx) })
	}
	uplinks.Wait()
	n.legs.Wait()
}

// registerWait is how long a session waits for a first relay: a daemon that
// has just started is still shaking hands with it.
const registerWait = 5 * time.Second

// Stand has the session made known to every relay that comes up.
func (n *Half) Stand(rid wire.RendezvousID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rids[rid] = true
}

// Register makes the session known to every relay that is up.
func (n *Half) Register(ctx context.Context, rid wire.RendezvousID) ([]wire.Relay, error) {
	if len(n.uplinks) == 0 {
		return nil, errors.New("no relay is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	n.Stand(rid)
	for {
		n.mu.Lock()
		changed := n.up
		n.mu.Unlock()
		relays, err := n.registerOnce(ctx, rid)
		if len(relays) > 0 {
			return relays, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (n *Half) registerOnce(ctx context.Context, rid wire.RendezvousID) ([]wire.Relay, error) {
	var relays []wire.Relay
	var errs error
	for _, u := range n.uplinks {
		relay, err := u.register(ctx, rid)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", u.relay.Address, err))
			continue
		}
		relays = append(relays, relay)
	}
	return relays, errs
}

// Serve begins to answer handshakes for the session.
func (n *Half) Serve(s seam.Served) {
	cfg := channel.DaemonConfig{
		Mode: s.Mode, RID: s.RID, HandleHash: s.HandleHash, Keys: s.Keys,
		Authority: n.core, Guard: channel.NewGuard(time.Now), Rand: n.rand,
	}
	if s.Recipient != nil {
		key, err := ecdh.X25519().NewPublicKey(s.Recipient)
		if err != nil {
			// The core parsed it as a key before it sealed to it.
			panic("network: serving a session: " + err.Error())
		}
		cfg.Recipient = key
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.served[s.RID] = cfg
}

// Drop forgets the session and takes it off the relays.
func (n *Half) Drop(rid wire.RendezvousID) {
	n.mu.Lock()
	delete(n.served, rid)
	delete(n.rids, rid)
	n.mu.Unlock()
	for _, u := range n.uplinks {
		u.unregister(rid)
	}
}

// Relays tells how each relay is reached.
func (n *Half) Relays() []seam.RelayState {
	states := make([]seam.RelayState, len(n.uplinks))
	for i, u := range n.uplinks {
		states[i] = u.state()
	}
	return states
}

// registered returns the sessions that stand on the relays.
func (n *Half) registered() []wire.RendezvousID {
	n.mu.Lock()
	defer n.mu.Unlock()
	rids := make([]wire.RendezvousID, 0, len(n.rids))
	for rid := range n.rids {
		rids = append(rids, rid)
	}
	return rids
}

// cameUp wakes whoever waits for a first relay.
func (n *Half) cameUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.up)
	n.up = make(chan struct{})
}

func (n *Half) configFor(rid wire.RendezvousID) (channel.DaemonConfig, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	cfg, ok := n.served[rid]
	return cfg, ok
}

// meet enters a leg among the strangers, dropping one beyond the bound: the
// oldest, of those first that have not shown to have the handle. The first
// function returned notes that it has, the second takes it out again.
func (n *Half) meet(leg wire.Leg) (shown, met func()) {
	s := &stranger{leg: leg}
	n.mu.Lock()
	n.strangers = append(n.strangers, s)
	var dropped *stranger
	if len(n.strangers) > maxUnauthenticated {
		i := max(0, slices.IndexFunc(n.strangers, func(s *stranger) bool { return !s.shown }))
		dropped = n.strangers[i]
		n.strangers = slices.Delete(n.strangers, i, i+1)
	}
	n.mu.Unlock()
	if dropped != nil {
		dropped.leg.Reset()
	}
	shown = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		s.shown = true
	}
	met = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i := slices.Index(n.strangers, s); i >= 0 { // else it was dropped
			n.strangers = slices.Delete(n.strangers, i, i+1)
		}
	}
	return shown, met
}
