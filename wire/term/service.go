package term

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// Service is what a program tells the service manager that started it, where
// there is one (sd_notify(3)): that it is ready, that it is alive, that it is
// stopping.
type Service struct {
	// Ready is closed once the program serves.
	Ready <-chan struct{}
	// Alive asks whether it still does, before each word of it. An error, or no
	// answer, and the manager hears nothing and starts the program anew: a
	// process whose timers run may have stopped to serve all the same.
	Alive  func(context.Context) error
	Logger *slog.Logger
}

// Tell returns when the context has ended, at once where nobody listens.
func (s Service) Tell(ctx context.Context, getenv func(string) string) {
	address := getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	say := func(state string) {
		if err := tell(address, state); err != nil {
			s.Logger.Warn("the service manager cannot be told", "error", err)
		}
	}
	select {
	case <-s.Ready:
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
			if err := s.ask(ctx, interval); err != nil {
				s.Logger.Error("the watchdog is not told", "error", err)
				continue
			}
			say("WATCHDOG=1")
		case <-ctx.Done():
			return
		}
	}
}

func (s Service) ask(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return s.Alive(ctx)
}

// watchdogInterval is a third of what the service manager allows, so that one
// answer may be late; zero if it does not watch this process.
func watchdogInterval(getenv func(string) string) time.Duration {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 3
}

func tell(address, state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("telling %s: %w", state, err)
	}
	return nil
}
