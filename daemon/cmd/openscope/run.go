package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"openscope/daemon"
	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func daemonCommand(p *paths) *term.Command {
	verbose := false
	return &term.Command{
		Name: "daemon", Short: "run the daemon until SIGTERM; SIGHUP re-reads grants, verbs and recipients",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&p.config, "config", p.config, "the configuration `FILE` (OPENSCOPE_CONFIG)")
			fs.BoolVar(&verbose, "verbose", false, "log more")
		},
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			return runDaemon(ctx, env.Logger(level), p.config, env.Getenv)
		},
	}
}

// netCommand is what a daemon's own program is called as to be its net half;
// daemon.Shim has taken that call. This is for whoever types it.
func netCommand() *term.Command {
	return &term.Command{
		Name: "net", Short: "the part of the daemon that faces the network", Hidden: true,
		Run: func(context.Context, *term.Env, []string) error {
			return term.Errorf(term.Usage, "net is started by the daemon, and by nobody else").WithHint("run: openscope daemon")
		},
	}
}

// runDaemon runs the daemon of a configuration file.
func runDaemon(ctx context.Context, logger *slog.Logger, config string, getenv func(string) string) error {
	onTwoProcessors(getenv)
	cfg, err := daemon.LoadConfig(config)
	if err != nil {
		return configError(config, err)
	}
	cfg.Logger = logger
	d, err := daemon.New(cfg)
	if err != nil {
		return configError(config, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { reloadOnHangup(ctx, d, logger) })
	service := term.Service{Ready: d.Ready(), Logger: logger, Alive: func(ctx context.Context) error {
		// As a command asks: through the socket, and the core's locks.
		_, err := control.Dial(cfg.Socket).Status(ctx)
		return err
	}}
	beside.Go(func() { service.Tell(ctx, getenv) })
	if err := d.Run(ctx); err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	return nil
}

// onTwoProcessors has this process use two processors at most, unless GOMAXPROCS
// says otherwise: one for the tunnel, whose work is too short to wake more for,
// and one beside it while a write of the log waits for the disk.
func onTwoProcessors(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	}
}

func configError(path string, err error) error {
	e := term.Errorf(term.Config, "%w", err)
	if errors.Is(err, fs.ErrNotExist) {
		return e.WithHint("run: openscope init")
	}
	return e.WithHint("run: openscope policy check")
}

// reloadOnHangup re-reads the rules on SIGHUP. Bad ones change nothing.
func reloadOnHangup(ctx context.Context, d *daemon.Daemon, logger *slog.Logger) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if err := d.Reload(); err != nil {
				logger.Error("grants, verbs and recipients stay as they were", "error", err)
				continue
			}
			logger.Info("grants, verbs and recipients were read again")
		}
	}
}
