package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/seam"
	"openscope/wire/call"
)

// Shim must be the first thing main does in any program that runs a daemon: the
// daemon starts its commands, and its net half, through its own program, in other
// roles.
func Shim() {
	executor.Shim()
	netHalf()
}

// Daemon is one daemon: [New] builds it, [Daemon.Run] runs it.
type Daemon struct {
	core  *core
	net   *seam.Supervisor
	netAs *executor.Identity // who the net half is; nil is the daemon's own user
	ready chan struct{}
}

// New reads everything the daemon trusts and refuses what is malformed or
// unprotected. It starts nothing and opens no socket.
func New(cfg Config) (*Daemon, error) {
	// Whoever could replace the socket would answer issuers in the daemon's place.
	if err := policy.CheckFolder(filepath.Dir(cfg.Socket), os.Geteuid()); err != nil {
		return nil, fmt.Errorf("preparing the control socket: %w", err)
	}
	core, err := newCore(cfg)
	if err != nil {
		return nil, err
	}
	d := &Daemon{core: core, ready: make(chan struct{})}
	if !cfg.InProcess {
		if d.netAs, err = netIdentity(cfg.NetUser); err != nil {
			return nil, err
		}
	}
	d.net = newNetwork(cfg, core, d.netAs, core.logger)
	core.network, core.netStatus = d.net, d.networkStatus
	return d, nil
}

// Ready is closed once the control socket answers.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Reload reads grants, verbs and recipients again. If any of them is bad, all
// stay as they were, and the error says why.
func (d *Daemon) Reload() error { return d.core.reload() }

// shutdownGrace is how long running work has, after it was killed, to leave
// its outcome in the log.
const shutdownGrace = 2 * time.Second

// Run serves until the context ends. It returns when every call has ended and
// every goroutine has: the last thing it writes is the log's stop entry.
func (d *Daemon) Run(ctx context.Context) (err error) {
	if err := d.core.openLog(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.core.closeLog()) }()
	listener, err := control.Listen(d.core.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listening on the control socket: %w", err)
	}
	// Calls, and the way out, outlive the context by as long as it takes to
	// end them in order.
	working, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	d.core.start(working)

	var children sync.WaitGroup
	children.Go(func() { d.net.Run(working) })
	children.Go(func() { d.core.watch(working) })
	children.Go(func() { d.core.notify.serve(working) })
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	served := make(chan error, 1)
	server := control.NewServer(d.core, withPrincipal, d.core.logger)
	children.Go(func() { served <- server.Run(serving, listener) })
	close(d.ready)

	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("serving the control socket: %w", err)
	}
	d.core.shutdown()
	stopServing()
	stopWork(&ended{cause: call.Closed, reason: goingDown})
	children.Wait()
	d.core.calls.Wait()
	return err
}

const goingDown = "the daemon is going down"

// withPrincipal puts who the kernel says is asking into the context of every
// request on the connection; where it does not say, nobody is.
func withPrincipal(ctx context.Context, conn net.Conn) context.Context {
	local, ok := conn.(*control.Conn)
	if !ok {
		return ctx
	}
	p, err := principal.FromConn(local.UnixConn)
	if err != nil {
		return ctx
	}
	return principal.NewContext(ctx, p)
}

// start lets connections and calls live as long as ctx.
func (c *core) start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	c.localCtx, c.stopLocal = context.WithCancelCause(ctx)
}

// stopLocalCalls ends the calls from inside that run now, and no later ones.
func (c *core) stopLocalCalls(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocal(why)
	c.localCtx, c.stopLocal = context.WithCancelCause(c.ctx)
}

// shutdown ends every session, so that clients are told, and waits a moment
// for what was running.
func (c *core) shutdown() {
	for _, s := range c.sessions.All() {
		if share, ok := c.shareOf(s.RID); ok {
			c.endShare(share, call.Closed, goingDown)
		}
	}
	gone := c.calls.idle()
	// The connections need their grace to say CLOSE even when nothing runs.
	grace := time.NewTimer(shutdownGrace)
	defer grace.Stop()
	closing := time.NewTimer(seam.CloseGrace)
	defer closing.Stop()
	if c.connected() > 0 {
		<-closing.C
	}
	select {
	case <-gone:
	case <-grace.C:
	}
}

func (c *core) connected() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.connections)
}

// reload swaps the rules, says so in the log, ends the running calls that the new
// ones do not allow, and then tells connected clients what is left to them.
func (c *core) reload() error {
	r, err := c.loadRules()
	e := audit.Event{Kind: "reload", Decision: "allow"}
	if err != nil {
		e.Decision, e.Reason = "deny", err.Error()
		return joinErrors(fmt.Errorf("keeping the old rules: %w", err), c.record(e))
	}
	if err := c.record(e); err != nil {
		return err
	}
	before := c.replaceRules(r)
	c.endNarrowed()
	c.showNarrowed(before)
	return nil
}

// replaceRules swaps them all at once, and returns the old ones; a lockdown
// stays.
func (c *core) replaceRules(r *rules) (before *rules) {
	c.ruling.Lock()
	defer c.ruling.Unlock()
	before = c.rules.Load()
	r.lockdown = before.lockdown
	c.rules.Store(r)
	return before
}
