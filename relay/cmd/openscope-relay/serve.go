package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/peterbourgon/ff/v3"

	"openscope/relay"
	"openscope/relay/admin"
	"openscope/wire"
	"openscope/wire/term"
)

func serveCommand(listen string) *term.Command {
	f := &serveFlags{listen: ":4433"}
	if listen != "" {
		f.listen = listen
	}
	return &term.Command{
		Name: "serve", Short: "run the relay",
		Long: `With --self-signed it makes a certificate, keeps it in --state, and prints the
pin that daemons put into their configuration. With --acme it has one issued,
and renewed, for a domain whose port 443 over TCP leads here; that accepts the
authority's terms. Daemons need a deployment token: see token new.`,
		Flags: f.define, Run: f.run,
		Options: []ff.Option{ff.WithConfigFileFlag("config"), ff.WithConfigFileParser(strictParser)},
	}
}

func (f *serveFlags) run(ctx context.Context, env *term.Env, _ []string) error {
	onOneProcessor(env.Getenv)
	if err := f.check(); err != nil {
		return term.Errorf(term.Usage, "%w", err)
	}
	boundMemory(env.Getenv, cmp.Or(f.limits.Memory, relay.DefaultMemory))
	logger := env.Logger(f.level())
	certificate, err := f.certificate(logger)
	if err != nil {
		return err
	}
	shown, err := certificate.get(&tls.ClientHelloInfo{})
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	tokens, err := f.tokens.open(ctx, logger)
	if err != nil {
		return err
	}
	defer tokens.Close()
	conn, listener, err := relay.Listen(f.listen)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	r, err := relay.New(relay.Config{
		Certificate: certificate.get, Challenge: certificate.challenge, Conn: conn, Listener: listener,
		Tokens: tokens, PublicAddress: f.public, Limits: f.limits, DrainTime: f.drain, Logger: logger,
	})
	if err != nil {
		return errors.Join(term.Errorf(term.Config, "%w", err), conn.Close(), listener.Close())
	}
	operator, err := f.operator(ctx, admin.Config{Stats: r.Stats, Ready: readiness(tokens.Ready, certificate.ready), Profile: f.pprof, Logger: logger})
	if err != nil {
		return errors.Join(err, conn.Close(), listener.Close())
	}
	fmt.Fprintf(env.Stdout, "listening on %s\npin %s\n", conn.LocalAddr(), wire.PinOf(shown.Leaf))
	if f.tokens.source == "" {
		if known, err := tokens.List(); err == nil && len(known) == 0 {
			fmt.Fprintf(env.Stderr, "no deployment token yet: run: %s\n", f.tokens.hint())
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer cancel()
	service := term.Service{Ready: r.Ready(), Logger: logger, Alive: func(context.Context) error {
		r.Stats() // through the registry's lock, which every join and hello needs
		return nil
	}}
	telling.Go(func() { service.Tell(ctx, env.Getenv) })
	telling.Go(func() { certificate.run(ctx) })
	return serveBoth(ctx, r, operator)
}

// onOneProcessor has this process use one processor at a time, unless GOMAXPROCS
// says otherwise. What a relay does is too short to be worth waking another
// processor for: forwarding costs an eighth less so. A larger
// machine runs a relay for each core, as nodes of a fleet (relay/README.md).
func onOneProcessor(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

// boundMemory has garbage collected when the heap has grown by a half, unless GOGC
// says otherwise: a rush then leaves a tenth less memory in use than where it may
// double, for a few openings in a hundred (bench/README.md). Near the limit it is
// collected sooner.
func boundMemory(getenv func(string) string, limit int64) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	debug.SetMemoryLimit(limit)
}

// readiness is what the first of them says that is not ready.
func readiness(all ...func() error) func() error {
	return func() error {
		for _, ready := range all {
			if err := ready(); err != nil {
				return err
			}
		}
		return nil
	}
}

// serveBoth runs the relay, and the operator's listener until it has drained.
func serveBoth(ctx context.Context, r *relay.Relay, operator *admin.Server) error {
	if operator == nil {
		return r.Run(ctx)
	}
	shown, stop := context.WithCancel(context.WithoutCancel(ctx))
	running, fail := context.WithCancel(ctx)
	defer fail()
	ended := make(chan error, 1)
	go func() {
		defer fail()
		ended <- operator.Run(shown)
	}()
	err := r.Run(running)
	stop()
	return errors.Join(err, <-ended)
}

// operator opens the operator's listener. Only the default address may be
// taken already.
func (f *serveFlags) operator(ctx context.Context, cfg admin.Config) (*admin.Server, error) {
	if f.admin == "off" {
		return nil, nil
	}
	server, err := admin.Listen(ctx, f.admin, cfg)
	switch {
	case errors.Is(err, admin.ErrProfileExposed):
		return nil, term.Errorf(term.Usage, "%w", err).WithHint("leave out --pprof, or --admin")
	case err != nil && f.admin == defaultAdmin && errors.Is(err, syscall.EADDRINUSE):
		cfg.Logger.Warn("no admin listener", "error", err)
		return nil, nil
	case err != nil:
		return nil, term.Errorf(term.Config, "%w", err)
	}
	cfg.Logger.Info("admin listening", "address", server.Address())
	return server, nil
}

func (f *serveFlags) level() slog.Level {
	if f.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
