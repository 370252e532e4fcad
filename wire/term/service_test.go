package term

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a service manager's socket and what it hears.
func manager(t *testing.T) (address string, hear func() string) {
	t.Helper()
	address = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return address, func() string {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var state [256]byte
		n, err := conn.Read(state[:])
		if err != nil {
			t.Fatalf("the manager hears nothing: %v", err)
		}
		return string(state[:n])
	}
}

func environment(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func TestAServiceManagerHearsOfReadinessLifeAndTheEnd(t *testing.T) {
	address, hear := manager(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, told := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	s := Service{Ready: ready, Logger: slog.New(slog.DiscardHandler), Alive: func(context.Context) error {
		asked.Add(1)
		return nil
	}}
	go func() {
		defer close(told)
		s.Tell(ctx, environment(map[string]string{
			"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": strconv.Itoa(os.Getpid()),
		}))
	}()
	close(ready)
	if got := hear(); got != "READY=1" {
		t.Fatalf("first %q", got)
	}
	for range 3 {
		if got := hear(); got != "WATCHDOG=1" {
			t.Fatalf("then %q", got)
		}
	}
	if asked.Load() < 3 {
		t.Errorf("it says that it is alive and asked %d times", asked.Load())
	}
	cancel()
	for {
		got := hear()
		if got == "STOPPING=1" {
			break
		}
		if got != "WATCHDOG=1" {
			t.Fatalf("at the end %q", got)
		}
	}
	<-told
}

func TestAProgramThatNoLongerServesIsNotSaidToBeAlive(t *testing.T) {
	address, hear := manager(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	close(ready)
	asked := make(chan struct{}, 100)
	var times atomic.Int64
	s := Service{Ready: ready, Logger: slog.New(slog.DiscardHandler), Alive: func(ctx context.Context) error {
		asked <- struct{}{}
		if times.Add(1)%2 == 0 { // one way not to serve is to say so, the other to hang
			return errors.New("it does not serve")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.Tell(ctx, environment(map[string]string{"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000"}))
	}()
	if got := hear(); got != "READY=1" {
		t.Fatalf("first %q", got)
	}
	for range 4 {
		<-asked
	}
	cancel()
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("a program that does not serve says %q", got)
	}
	<-told
}

func TestTheWatchdogOfAnotherProcessIsNotAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want time.Duration
	}{
		"none":            {nil, 0},
		"ours":            {map[string]string{"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}, time.Second},
		"whose it is not": {map[string]string{"WATCHDOG_USEC": "3000000"}, time.Second},
		"another's":       {map[string]string{"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0},
		"malformed":       {map[string]string{"WATCHDOG_USEC": "soon"}, 0},
	} {
		if got := watchdogInterval(environment(c.env)); got != c.want {
			t.Errorf("%s: every %v, want %v", name, got, c.want)
		}
	}
}
