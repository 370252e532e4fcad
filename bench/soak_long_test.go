//go:build long

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openscope/wire"
)

// soak is the whole product under a mixed load, on a network that somebody
// upsets, and what its processes hold meanwhile.
type soak struct {
	*site
	box    *middlebox
	agent  *agentProcess
	gauges map[string]*gauge
	half   int // the daemon's other process; zero before it was looked for
	began  time.Time

	calls, failed, upsets atomic.Int64
}

// agentProcess is the client that stays: an MCP server whose tools are called.
type agentProcess struct {
	pid int
	in  io.Writer

	mu      sync.Mutex // guards what is below
	next    int
	waiting map[int]chan string
}

// startAgent serves a session of its own.
func (k *soak) startAgent() *agentProcess {
	k.t.Helper()
	k.open("30m", "test.steps", "test.bulk")
	cmd := command(append(k.env(), "OPENSCOPE_PASSPORT="+k.handle), "openscope-reflect-client", "mcp")
	in, out := pipes(k.t, cmd)
	a := &agentProcess{pid: cmd.Process.Pid, in: in, waiting: make(map[int]chan string)}
	go a.read(out) // ends with the process
	a.ask(k.t.Context(), "initialize", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"soak","version":"1"}}`)
	_, _ = io.WriteString(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`+"\n")
	return a
}

func (a *agentProcess) read(out *bufio.Reader) {
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			return
		}
		var answer struct{ ID int }
		if json.Unmarshal([]byte(line), &answer) != nil {
			continue
		}
		a.mu.Lock()
		if c := a.waiting[answer.ID]; c != nil {
			c <- line
			delete(a.waiting, answer.ID)
		}
		a.mu.Unlock()
	}
}

// ask returns the answer, or nothing when there is none in time.
func (a *agentProcess) ask(ctx context.Context, method, params string) string {
	c := make(chan string, 1)
	a.mu.Lock()
	a.next++
	id := a.next
	a.waiting[id] = c
	_, _ = fmt.Fprintf(a.in, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", id, method, params)
	a.mu.Unlock()
	select {
	case line := <-c:
		return line
	case <-time.After(3 * time.Minute):
	case <-ctx.Done():
	}
	return ""
}

// load calls, in every way there is, until the context ends; what has begun then
// is waited for.
func (k *soak) load(ctx context.Context, name string) {
	var running sync.WaitGroup
	defer running.Wait()
	again := func(work func(n int)) {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				work(n)
			}
		})
	}
	for i := range 4 { // the agent's
		again(func(n int) {
			verb, lines := "test.steps", 20
			if (i+n)%3 == 0 {
				verb, lines = "test.bulk", 5_000
			}
			answer := k.agent.ask(k.t.Context(), "tools/call", fmt.Sprintf(`{"name":%q,"arguments":{"name":"%s-a%d-%d","lines":%d}}`, verb, name, i, n, lines))
			k.count(strings.Contains(answer, `"outcome":"exited"`) || strings.Contains(answer, `"status":0`), answer)
		})
	}
	again(func(n int) { // people who come, call and are gone; a session each
		here := *k.site
		here.open("5m", "test.steps")
		_, errs, code := run(k.t, here.env(), "openscope-reflect-client", "call", "test.steps", "name="+fmt.Sprint(name, "-p", n), "lines=5")
		k.count(code == 0, errs)
		here.must("openscope", "share", "revoke", here.id)
	})
	again(func(n int) { // those inside
		_, errs, code := run(k.t, k.env(), "openscope", "call", "--agent", "you", "test.steps", "name="+fmt.Sprint(name, "-l", n), "lines=10")
		k.count(code == 0, errs)
		k.must("openscope", "share", "list", "--all", "--json")
	})
	random := rand.New(rand.NewPCG(uint64(len(name)), 4))
	again(func(int) { k.upset(ctx, random) })
}

func (k *soak) count(good bool, answer string) {
	k.calls.Add(1)
	if !good {
		k.failed.Add(1)
		k.t.Logf("%v: a call went wrong: %.400s", time.Since(k.began).Round(time.Second), answer)
	}
}

// setLoss is the part of the packets that is lost from here on.
func (b *middlebox) setLoss(loss float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loss = loss
}

// upset does something to the network, or to the daemon, and waits.
func (k *soak) upset(ctx context.Context, random *rand.Rand) {
	select {
	case <-time.After(time.Duration(4+random.IntN(8)) * time.Second):
	case <-ctx.Done():
		return
	}
	k.upsets.Add(1)
	switch random.IntN(4) {
	case 0: // every port is forgotten
		for i := range k.box.senders() {
			k.box.rebind(i)
		}
	case 1:
		k.box.setLoss(0.1)
		time.Sleep(5 * time.Second)
	case 2: // nothing passes, so that connections are given up
		k.box.setLoss(1)
		time.Sleep(time.Duration(1+random.IntN(9)) * time.Second)
	default:
		_ = k.daemon.cmd.Process.Signal(syscall.SIGHUP)
	}
	k.box.setLoss(0)
}

// soaked are the processes, in the order of the report, each with its program.
var soaked = []struct{ name, program string }{
	{"relay", "openscope-relay"}, {"daemon", "openscope"}, {"its net half", "openscope"}, {"client", "openscope-reflect-client"},
}

func (k *soak) holds() map[string]held {
	daemon := k.daemon.cmd.Process.Pid
	pids := []int{k.relay.cmd.Process.Pid, daemon, k.netHalf(daemon), k.agent.pid}
	all := make(map[string]held)
	for i, p := range soaked {
		all[p.name] = k.gauges[p.program].read(k.t, pids[i])
	}
	return all
}

// netHalf is the daemon's other process, its only child while no call runs. It is
// looked for once: that it is started again would be a finding.
func (k *soak) netHalf(daemon int) int {
	k.t.Helper()
	if k.half != 0 {
		return k.half
	}
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, path := range found {
		children, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		for _, child := range strings.Fields(string(children)) {
			if k.half, err = strconv.Atoi(child); err != nil {
				k.t.Fatal(err)
			}
		}
	}
	if k.half == 0 {
		k.t.Fatal("the daemon has no other process")
	}
	return k.half
}

// report says what they hold, every so often.
func (k *soak) report(ctx context.Context, every time.Duration) {
	for {
		now := k.holds()
		var line strings.Builder
		for _, p := range soaked {
			fmt.Fprintf(&line, "%s %v | ", p.name, now[p.name])
		}
		k.t.Logf("%7v  %s%d calls, %d upsets", time.Since(k.began).Round(time.Second), line.String(), k.calls.Load(), k.upsets.Load())
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}

// rest is what they hold once nothing runs: the least of each within the
// time in which what was lost is given up.
func (k *soak) rest() map[string]held {
	least := k.holds()
	for began := time.Now(); time.Since(began) < soakRest; time.Sleep(2 * time.Second) {
		for program, now := range k.holds() {
			l := least[program]
			least[program] = held{min(l.goroutines, now.goroutines), min(l.descriptors, now.descriptors), min(l.kib, now.kib)}
		}
	}
	return least
}

const (
	// soakRest is longer than a relay, or a daemon, keeps a connection of which it
	// hears nothing.
	soakRest = 100 * time.Second
	// soakRound is how long one client stays: its session ends after half an hour.
	soakRound = 20 * time.Minute
)

// N6: for as long as one likes, all that the product does, with its network upset
// all the while. What the processes hold at rest does not grow.
func TestASoakLeavesNothingBehind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to read what the processes hold")
	}
	k := &soak{gauges: make(map[string]*gauge), began: time.Now()}
	k.site = newSiteBehind(t, func(address string) string {
		var near wire.Relay
		k.box, near = newMiddlebox(t, wire.Relay{Address: address})
		return near.Address
	})
	k.slow()
	for _, p := range soaked {
		k.gauges[p.program] = newGauge(t, p.program)
	}
	var first map[string]held // after the first load
	for round := 0; time.Since(k.began) < *length; round++ {
		k.agent = k.startAgent()
		k.netHalf(k.daemon.cmd.Process.Pid) // before a call is its child too
		left := min(soakRound, *length-time.Since(k.began))
		loaded := func(part string, share time.Duration) map[string]held {
			ctx, stop := context.WithTimeout(t.Context(), share)
			defer stop()
			var beside sync.WaitGroup
			beside.Go(func() { k.report(ctx, max(share/10, 2*time.Second)) })
			k.load(ctx, fmt.Sprint(part, round))
			beside.Wait()
			now := k.rest()
			for _, p := range soaked {
				t.Logf("at rest, %s: %v", p.name, now[p.name])
			}
			return now
		}
		warm := loaded("warm", max(left/4-soakRest, 20*time.Second))
		if first == nil {
			first = warm
		}
		last := loaded("long", max(left*3/4-soakRest, 20*time.Second))
		for _, p := range soaked {
			before := first[p.name]
			if p.name == "client" {
				before = warm[p.name] // it is another with every round
			}
			grown(t, p.name, before, last[p.name])
		}
		k.must("openscope", "share", "revoke", "--all")
	}
	ran := ranOnce(t, k.read("ran"))
	t.Logf("%v: %d calls, %d of them went wrong, %d ran; %d upsets", time.Since(k.began).Round(time.Second), k.calls.Load(), k.failed.Load(), ran, k.upsets.Load())
	if k.failed.Load() > k.calls.Load()/10 {
		t.Errorf("%d of %d calls went wrong", k.failed.Load(), k.calls.Load())
	}
	k.must("openscope", "audit", "verify")
}

// grown fails where a process holds more at rest than it did: by more than what a
// collector that has not run yet, and a log that has grown, account for.
func grown(t *testing.T, program string, before, after held) {
	t.Helper()
	if after.goroutines > before.goroutines+6 || after.descriptors > before.descriptors+6 || after.kib > before.kib*5/4+16<<10 {
		t.Errorf("%s held %v, and now holds %v", program, before, after)
	}
}
