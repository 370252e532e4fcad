package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// way is one way from a client to an origin: processes that stand for the whole
// run, and what a client is told to find the origin by.
type way struct {
	name   string
	origin *player
	client *player
	relay  []int // process ids of what stands in between; none for a hop
	fresh  int64 // memory of its holders, in bytes, before anything was done
	also   []standing
}

// standing is a process that stands until the way is stopped. There is one that
// waits for it, as a process can be waited for once.
type standing struct {
	process *os.Process
	gone    <-chan struct{}
}

func await(cmd *exec.Cmd) standing {
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ended by our signal
		close(gone)
	}()
	return standing{cmd.Process, gone}
}

// player is a process of this program in a role: it is told one line of JSON at
// a time, and answers with one.
type player struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// order is a line to a player.
type order struct {
	Do       string
	N        int
	Duration time.Duration
}

// answer is its line back.
type answer struct {
	Error string
	Where string          // of an origin: what a client finds it by
	Bytes int64           // moved
	Took  time.Duration   // in
	Trips []time.Duration // round trips, or openings
	Count int             // of what was done
}

func startPlayer(ctx context.Context, role string, env []string, args ...string) (*player, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{roleWord, role}, args...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &player{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

// tell gives an order and awaits the answer.
func (p *player) tell(o order) (answer, error) {
	if err := p.send(o); err != nil {
		return answer{}, err
	}
	return p.hear()
}

func (p *player) send(o order) error { return json.NewEncoder(p.in).Encode(o) }

func (p *player) hear() (a answer, err error) {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("a process of the benchmark has gone: %w", err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (p *player) stop() error {
	_ = p.in.Close() // what ends it
	return p.cmd.Wait()
}

func (w *way) stop() (err error) {
	for _, p := range []*player{w.client, w.origin} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	for i := len(w.also) - 1; i >= 0; i-- {
		_ = w.also[i].process.Signal(os.Interrupt)
		<-w.also[i].gone
	}
	return err
}

// oneP is for the ends of every way alike, and the relay's own policy; the naive
// relay runs as Go has it.
var oneP = []string{"GOMAXPROCS=1"}

// startWays starts everything. What it has started is returned with an error
// too, to be stopped.
func startWays(ctx context.Context, o options, dir string) (ways []*way, err error) {
	for _, each := range []struct {
		name  string
		start func(context.Context, options, string) (*way, error)
	}{
		{"hop", startHop}, {"tuned", startTuned}, {"naive", startNaive}, {"relay", startRelay}, {"records", startRecords}, {"packets", startPackets}, {"ssh", startSSH},
	} {
		if !o.ways.has(each.name) {
			continue
		}
		w, err := each.start(ctx, o, dir)
		if errors.Is(err, errAbsent) {
			fmt.Println("skipped:", err)
			continue
		}
		if w != nil {
			ways = append(ways, w)
		}
		if err != nil {
			return ways, err
		}
	}
	return ways, nil
}

// meet starts origin and client of a way.
func (w *way) meet(ctx context.Context, kind string, args ...string) (err error) {
	if w.origin, err = startPlayer(ctx, "origin", oneP, append([]string{kind}, args...)...); err != nil {
		return err
	}
	standing, err := w.origin.hear()
	if err != nil {
		return fmt.Errorf("starting the origin of %s: %w", w.name, err)
	}
	w.client, err = startPlayer(ctx, "client", oneP, kind, standing.Where)
	return err
}

func startHop(ctx context.Context, _ options, _ string) (*way, error) {
	w := &way{name: "hop"}
	return w, w.meet(ctx, "hop")
}

func startTuned(ctx context.Context, _ options, _ string) (*way, error) {
	w := &way{name: "tuned"}
	return w, w.meet(ctx, "tuned")
}

func startNaive(ctx context.Context, _ options, _ string) (*way, error) {
	w := &way{name: "naive"}
	relay, err := startPlayer(ctx, "naive", nil)
	if err != nil {
		return w, err
	}
	standing, err := relay.hear()
	if err != nil {
		return w, err
	}
	w.relay = []int{relay.cmd.Process.Pid}
	w.also = append(w.also, await(relay.cmd))
	return w, w.meet(ctx, "naive", standing.Where)
}

// startPackets stands a relay between the ends of a hop that opens no packet.
func startPackets(ctx context.Context, _ options, _ string) (w *way, err error) {
	w = &way{name: "packets"}
	if w.origin, err = startPlayer(ctx, "origin", oneP, "tuned"); err != nil {
		return w, err
	}
	origin, err := w.origin.hear()
	if err != nil {
		return w, err
	}
	relay, err := startPlayer(ctx, "packets", oneP, origin.Where)
	if err != nil {
		return w, err
	}
	w.relay = []int{relay.cmd.Process.Pid}
	w.also = append(w.also, await(relay.cmd))
	standing, err := relay.hear()
	if err != nil {
		return w, err
	}
	w.client, err = startPlayer(ctx, "client", oneP, "tuned", standing.Where)
	return w, err
}

func startRelay(ctx context.Context, o options, dir string) (*way, error) {
	return startOurs(ctx, o, filepath.Join(dir, "relay"), "relay")
}

func startRecords(ctx context.Context, o options, dir string) (*way, error) {
	return startOurs(ctx, o, filepath.Join(dir, "records"), "records")
}

// noLimit is a rate, or a number of connections, that no run here comes near.
const noLimit = "1000000"

// startOurs starts the relay's own program, as an operator would.
func startOurs(ctx context.Context, o options, state, name string) (*way, error) {
	w := &way{name: name}
	program := filepath.Join(o.bin, "openscope-relay")
	token, err := exec.CommandContext(ctx, program, "token", "new", "perf", "--joins", noLimit, "--state", state).Output()
	if err != nil {
		return w, fmt.Errorf("making a token: %w", err)
	}
	address, err := freePort("udp")
	if err != nil {
		return w, err
	}
	// One address opens here what many would elsewhere.
	args := []string{"serve", "--handshake-rate", noLimit, "--handshake-rate-per-address", noLimit, "--max-connections-per-address", noLimit,
		"--listen", address, "--self-signed", "--state", state, "--admin", "off"}
	if o.profile != "" && name == "relay" {
		args = append(args[:len(args)-1], o.profile, "--pprof")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	said, err := cmd.StdoutPipe()
	if err != nil {
		return w, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return w, err
	}
	w.relay = []int{cmd.Process.Pid}
	pin, gone := make(chan string, 1), make(chan struct{})
	w.also = append(w.also, standing{cmd.Process, gone})
	go func() {
		defer close(gone)
		lines := bufio.NewScanner(said)
		for lines.Scan() { // to its end, so that the relay never waits for a reader
			if found := pinText.FindString(lines.Text()); found != "" {
				select {
				case pin <- found:
				default:
				}
			}
		}
		close(pin)
		_ = cmd.Wait() // after the last line; ended by our signal
	}()
	select {
	case p, ok := <-pin:
		if !ok {
			return w, errors.New("the relay ended without printing its pin")
		}
		return w, w.meet(ctx, name, address, p, strings.TrimSpace(string(token)))
	case <-time.After(10 * time.Second):
		return w, errors.New("the relay prints no pin")
	}
}

var pinText = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// errAbsent says that a way needs a program that is not here.
var errAbsent = errors.New("not here")

func freePort(network string) (string, error) {
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return conn.LocalAddr().String(), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
