package network

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"openscope/daemon/internal/seam"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// Redialing a relay backs off from backoffMin, doubling, to backoffMax, with
// half of it jitter: a restarted relay must not meet all its daemons at once.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
)

// uplink is the daemon's connection to one relay, made again whenever it is
// lost, with every session registered anew.
type uplink struct {
	net   *Half
	relay wire.Relay

	mu      sync.Mutex
	tunnel  *tunnel.Daemon // nil while down
	problem string         // why it is down
}

var errDown = errors.New("not connected")

// run returns when the context has ended and its legs are being torn down.
func (u *uplink) run(ctx context.Context) {
	backoff := backoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := u.stand(ctx)
		u.down(err)
		if time.Since(began) > backoffMax {
			backoff = backoffMin
		}
		pause := backoff/2 + rand.N(backoff/2)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// stand connects, registers what is open and accepts legs until the
// connection is lost.
func (u *uplink) stand(ctx context.Context) error {
	t, err := u.dial(ctx, u.net.ways)
	for err == nil {
		if t, err = u.standOn(ctx, t); t == nil {
			return err
		}
	}
	return err
}

func (u *uplink) dial(ctx context.Context, ways tunnel.Ways) (*tunnel.Daemon, error) {
	return tunnel.DialDaemon(ctx, tunnel.DaemonConfig{
		Relay: u.relay, Roots: u.net.roots, Prove: u.net.core.ProveHello, Ways: ways, Logger: u.net.logger,
	})
}

// standOn stands on a connection until it is lost, or until there is a better one,
// which it returns.
func (u *uplink) standOn(ctx context.Context, t *tunnel.Daemon) (better *tunnel.Daemon, err error) {
	u.mu.Lock()
	u.tunnel, u.problem = t, ""
	u.mu.Unlock()
	u.net.changed(u.net.Relays())
	for _, rid := range u.net.registered() {
		if _, err := u.register(ctx, rid); err != nil {
			u.net.logger.Warn("a session could not be registered", "relay", u.relay.Address, "error", err)
		}
	}
	u.net.cameUp()
	u.net.logger.Info("relay connected", "relay", u.relay.Address, "rung", t.Rung().String())
	climbing, stop := context.WithCancel(ctx)
	var climb sync.WaitGroup
	climb.Go(func() {
		if better = u.climb(climbing, t.Rung()); better != nil {
			_ = t.Close() // accept returns; the legs' clients come by the other
		}
	})
	err = u.accept(ctx, t)
	stop()
	climb.Wait()
	_ = t.Close()
	if ctx.Err() != nil && better != nil {
		_ = better.Close()
		better = nil
	}
	if better != nil {
		err = nil
	}
	return better, err
}

// climb tries QUIC again every now and then below it, until it works.
func (u *uplink) climb(ctx context.Context, rung tunnel.Rung) *tunnel.Daemon {
	ways, ok := u.net.ways.Climb(rung)
	for ok {
		select {
		case <-time.After(tunnel.ClimbPause()):
		case <-ctx.Done():
			return nil
		}
		if t, err := u.dial(ctx, ways); err == nil {
			return t
		}
	}
	return nil
}

// accept takes legs until the connection is lost.
func (u *uplink) accept(ctx context.Context, t *tunnel.Daemon) error {
	for {
		preface, leg, err := t.Accept(ctx)
		if err != nil {
			return err
		}
		u.net.legs.Go(func() { u.net.serveLeg(ctx, t, preface, leg) })
	}
}

func (u *uplink) down(err error) {
	u.mu.Lock()
	u.tunnel, u.problem = nil, "connection lost"
	if err != nil {
		u.problem = err.Error()
	}
	u.mu.Unlock()
	u.net.changed(u.net.Relays())
	if err != nil {
		u.net.logger.Warn("relay not connected", "relay", u.relay.Address, "error", err)
	}
}

func (u *uplink) current() (*tunnel.Daemon, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tunnel == nil {
		return nil, errors.Join(errDown, errors.New(u.problem))
	}
	return u.tunnel, nil
}

// register returns the relay as a handle names it: by the node's own address
// where it told one.
func (u *uplink) register(ctx context.Context, rid wire.RendezvousID) (wire.Relay, error) {
	t, err := u.current()
	if err != nil {
		return wire.Relay{}, err
	}
	r, err := u.net.core.ProveRegister(t.Exporter(), rid)
	if err != nil {
		return wire.Relay{}, err
	}
	if err := t.Register(ctx, r); err != nil {
		return wire.Relay{}, err
	}
	relay := u.relay
	if address := t.Address(); address != "" {
		relay.Address = address
	}
	return relay, nil
}

func (u *uplink) unregister(rid wire.RendezvousID) {
	t, err := u.current()
	if err != nil {
		return // nothing stands there
	}
	if err := t.Unregister(rid); err != nil {
		u.net.logger.Debug("unregistering", "relay", u.relay.Address, "error", err)
	}
}

func (u *uplink) state() seam.RelayState {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := seam.RelayState{Address: u.relay.Address, Connected: u.tunnel != nil, Problem: u.problem}
	if s.Connected {
		s.Rung = u.tunnel.Rung().String()
	}
	return s
}
