package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"errors"

	"openscope/daemon"
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

// runDaemon runs the daemon of a configuration file.
func runDaemon(ctx context.Context, logger *slog.Logger, config string, getenv func(string) string) error {
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
	beside.Go(func() { notifySystemd(ctx, d, getenv, logger) })
	if err := d.Run(ctx); err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	return nil
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

// notifySystemd tells the service manager, where there is one, that the daemon
// is ready, alive, and stopping (sd_notify(3)).
func notifySystemd(ctx context.Context, d *daemon.Daemon, getenv func(string) string, logger *slog.Logger) {
	address := getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	say := func(state string) {
		if err := notify(address, state); err != nil {
			logger.Warn("the service manager cannot be told", "error", err)
		}
	}
	select {
	case <-d.Ready():
		say("READY=1")
	case <-ctx.Done():
		return
	}
	defer say("STOPPING=1")
	interval := watchdogInterval(getenv)
	if interval == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			say("WATCHDOG=1")
		case <-ctx.Done():
			return
		}
	}
}

// watchdogInterval is half of what the service manager allows; zero if it does
// not watch.
func watchdogInterval(getenv func(string) string) time.Duration {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

func notify(address, state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notifying: %w", err)
	}
	return nil
}
