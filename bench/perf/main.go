// Perf measures the hot path: what a byte, a round trip and an idle session cost
// through our relay, beside what people would use instead. Every figure of one
// run comes from separate processes on loopback, taken in turns (A B C A B C …),
// so that the ratios hold where the machine's speed drifts; single figures do
// not. It is no test: nothing fails by a figure.
//
// The ways there are measured side by side:
//
//	hop      one QUIC connection as quic-go has it, no relay
//	tuned    the same with our sockets (GRO) and our windows
//	naive    a relay of two io.Copy of 32 KiB between QUIC streams
//	relay    openscope-relay with bare streams
//	records  openscope-relay with the channel's records end to end
//	packets  a relay that forwards QUIC packets unopened (bench/FORWARDING.md)
//	ssh      OpenSSH -R and -L through a jump host, default cipher
//
// It is run by make bench, and writes bench/RESULTS.md and bench/results.svg.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are how much is measured.
type options struct {
	bin      string
	out      string
	rounds   int
	duration time.Duration // of one measurement of throughput
	trips    int           // round trips of one measurement
	idle     int           // sessions held idle
	idleFor  time.Duration
	profile  string
	ways     chosen
	kinds    chosen // of measurements
}

// chosen are names, or all there are where it is empty.
type chosen []string

func (c chosen) has(name string) bool { return len(c) == 0 || slices.Contains(c, name) }

func (c *chosen) String() string { return strings.Join(*c, ";") }

// Set takes names with semicolons between, as the names of measurements have commas.
func (c *chosen) Set(s string) error {
	*c = strings.Split(s, ";")
	return nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == roleWord {
		if err := playRole(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "perf:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "where make build has put the programs")
	flag.StringVar(&o.out, "out", "bench", "where RESULTS.md and results.svg are written; empty writes none")
	flag.IntVar(&o.rounds, "rounds", 7, "how often every figure is taken")
	flag.DurationVar(&o.duration, "duration", 1500*time.Millisecond, "how long bytes are pushed for one figure")
	flag.IntVar(&o.trips, "trips", 2000, "round trips for one figure")
	flag.IntVar(&o.idle, "idle", 1000, "idle sessions to weigh; 0 weighs none")
	flag.DurationVar(&o.idleFor, "idle-for", 30*time.Second, "how long they are watched")
	flag.StringVar(&o.profile, "profile", "", "where the relay that carries bare streams shows its /debug/pprof: a loopback `ADDRESS`")
	flag.Var(&o.ways, "ways", "measure these `WAYS` alone, with semicolons between, as in hop;relay")
	flag.Var(&o.kinds, "kinds", "take these `MEASUREMENTS` alone, with semicolons between, as in \"bulk, 1;round trip\"")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "openscope-perf-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	results := newResults(o)
	results.noteMachine()
	ways, err := startWays(ctx, o, dir)
	defer func() {
		for _, w := range ways {
			err = errors.Join(err, w.stop())
		}
	}()
	if err != nil {
		return err
	}
	// First, while the processes are new: later they hold what the rounds have left.
	for _, w := range ways {
		if o.idle == 0 {
			break
		}
		if w.fresh, err = resident(w.holders()); err != nil {
			return err
		}
		if err := weighBusy(ctx, o, w, results); err != nil {
			return fmt.Errorf("full sessions of %s: %w", w.name, err)
		}
		if err := weighIdle(ctx, o, w, results); err != nil {
			return fmt.Errorf("idle sessions of %s: %w", w.name, err)
		}
	}
	for round := range o.rounds {
		fmt.Printf("round %d of %d\n", round+1, o.rounds)
		for _, m := range measurements(o) {
			for _, w := range ways {
				fmt.Printf("  %s of %s\n", m.name, w.name)
				if err := m.take(ctx, w, results); err != nil {
					return fmt.Errorf("%s of %s: %w", m.name, w.name, err)
				}
			}
		}
	}
	results.noteMachine()
	return results.write(os.Stdout)
}
