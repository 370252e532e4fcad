// The demo runs the whole product for real on this machine, on loopback: a
// relay, a daemon, an OpenSSH server and a small service called web, and then
// shows one session from opening to revoke, each command with its output.
//
// It exits non-zero if any step is not as expected, and leaves nothing behind.
// It is a demonstration and an end-to-end test; nothing imports it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// The service, and the command that restarts it, are this program in
	// another role, so that the demo needs nothing else.
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(playRole(role, os.Args[1:]))
	}
	bin := flag.String("bin", "bin", "the folder of the three programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	began := time.Now()
	if err := runDemo(ctx, *bin); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("\nEvery step was as expected, in %.1f s; nothing is left running.\n", time.Since(began).Seconds())
}

// runDemo sets the stage, plays the session, and takes everything down again.
func runDemo(ctx context.Context, bin string) (err error) {
	s, err := newStage(bin)
	if err != nil {
		return err
	}
	defer func() { s.takeDown() }()
	for _, step := range []func(context.Context) error{
		s.startService, s.startSSH, s.startRelay, s.configure, s.startDaemon, // stage.go
		s.open, s.look, s.tail, s.restart, s.refusals, s.revoke, s.record, s.whatTheRelaySaw, // session.go
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}
