package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// fleet is three relays and the three NATS servers that their tokens are in,
// each a process that can be killed.
type fleet struct {
	*site
	client, route [3]string // addresses of the NATS servers
	servers       [3]*exec.Cmd
	listens       [3]string
	relays        [3]*exec.Cmd
	said          [3]*lockedBuffer
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newFleet starts it all, and a daemon that stands on all three.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	if _, err := exec.LookPath("nats-server"); err != nil {
		t.Skip("nats-server is not installed (.ci/install nats-server=nats-server)")
	}
	f := &fleet{site: &site{t: t, dir: protectedDir(t)}}
	for i := range f.servers {
		f.client[i], f.route[i], f.listens[i] = freeAddress(t), freeAddress(t), freeAddress(t)
	}
	t.Cleanup(func() {
		for i := range f.servers {
			end(f.relays[i], syscall.SIGKILL)
			end(f.servers[i], syscall.SIGKILL)
		}
	})
	for i := range f.servers {
		f.startServer(i)
	}
	var token string
	until(t, 90*time.Second, "a token can be made", func() bool { // the servers elect a leader first
		out, _, _ := run(t, nil, "openscope-relay", "token", "new", "bench", "--tokens", f.urls())
		token = tokenText.FindString(out)
		return token != ""
	})
	relays := "relays:\n"
	for i := range f.relays {
		f.startNode(i)
		relays += fmt.Sprintf("  - address: %s\n    pin: %s\n", f.listens[i], f.nodePin(i))
	}
	f.configure(token, relays)
	f.startDaemon()
	f.must("openscope-reflect-client", "keygen")
	f.must("openscope", "recipient", "add", "vendor-b", strings.TrimSpace(f.must("openscope-reflect-client", "key")))
	return f
}

var tokenText = regexp.MustCompile(`ost1[0-9a-z]+`)

// configure writes the daemon's files: all relays, and verbs that take their time.
func (f *fleet) configure(token, relays string) {
	f.t.Helper()
	me, err := user.Current()
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("token", token+"\n", 0o600)
	f.must("openscope", "init", "--dir", f.path("etc"), "--token", "@"+f.path("token"))
	starter, err := os.ReadFile(f.path("etc/openscope.yaml"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("etc/openscope.yaml", relays+string(starter), 0o644)
	for name, script := range resumeScripts {
		f.write(name, fmt.Sprintf("#!/bin/sh\necho \"$1\" >> %s/ran\n%s\n", f.dir, script), 0o755)
	}
	f.write("etc/verbs.yaml", strings.ReplaceAll(resumeVerbs, "DIR", f.dir), 0o644)
	f.write("etc/grants.yaml", strings.ReplaceAll(resumeGrants, "USER", me.Username), 0o644)
}

func (f *fleet) urls() string { return "nats://" + strings.Join(f.client[:], ",nats://") }

func (f *fleet) startServer(i int) {
	f.t.Helper()
	host, port, err := net.SplitHostPort(f.client[i])
	if err != nil {
		f.t.Fatal(err)
	}
	f.servers[i] = exec.Command("nats-server", "-js", "-sd", f.path(fmt.Sprint("nats-", i)), "-n", fmt.Sprint("n", i), "-a", host, "-p", port,
		"--cluster_name", "test", "--cluster", "nats://"+f.route[i], "--routes", "nats://"+strings.Join(f.route[:], ",nats://"))
	if err := f.servers[i].Start(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) startNode(i int) {
	f.t.Helper()
	f.said[i] = &lockedBuffer{}
	f.relays[i] = command(nil, "openscope-relay", "serve", "--listen", f.listens[i], "--self-signed", "--state", f.path(fmt.Sprint("relay-", i)),
		"--tokens", f.urls(), "--admin", "off", "--drain", "5s")
	f.relays[i].Stdout, f.relays[i].Stderr = f.said[i], f.said[i]
	if err := f.relays[i].Start(); err != nil {
		f.t.Fatal(err)
	}
}

// nodePin waits until the node listens.
func (f *fleet) nodePin(i int) (pin string) {
	f.t.Helper()
	until(f.t, 30*time.Second, "the node prints its pin", func() bool {
		pin = regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(f.said[i].String())
		return pin != ""
	})
	return pin
}

// end ends a process and waits for it.
func end(cmd *exec.Cmd, how syscall.Signal) {
	if cmd == nil || cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(how)
	_ = cmd.Wait()
}

// disturb kills or restarts one node, or kills one server, and starts it again.
func (f *fleet) disturb(random *mathrand.Rand) (what string) {
	i := random.IntN(len(f.relays))
	switch random.IntN(4) {
	case 0: // as an upgrade does
		end(f.relays[i], syscall.SIGTERM)
		f.startNode(i)
		return "restarted"
	case 1:
		end(f.servers[i], syscall.SIGKILL)
		f.startServer(i)
		return "server killed"
	}
	end(f.relays[i], syscall.SIGKILL)
	f.startNode(i)
	return "killed"
}

// caller is one recipient, who calls again and again.
type caller struct {
	session *client.Session
	name    string

	made, whole int
	cut         []string
}

// call makes one call, and holds what it says of itself to what was to come.
func (c *caller) call(t *testing.T, verb string) {
	name := fmt.Sprintf("%s-%d", c.name, c.made)
	c.made++
	var stdout bytes.Buffer
	lines := 20 + c.made%60
	want, _ := steps(name, lines)
	if verb == "test.bulk" {
		lines = 50_000
		want = numbersUpTo(lines)
	}
	r, err := c.session.Call(t.Context(), verb, params("name", name, "lines", fmt.Sprint(lines)), &stdout, io.Discard)
	switch {
	case err == nil && r.Complete && (r.Cause != call.Exited || stdout.String() != want):
		t.Errorf("%s is said to be complete: %v with %d bytes of %d", name, r.Cause, stdout.Len(), len(want))
	case err == nil && r.Complete:
		c.whole++
	case !strings.HasPrefix(want, stdout.String()):
		t.Errorf("%s was cut, and what came is not the beginning of what was sent", name)
	default:
		c.cut = append(c.cut, fmt.Sprintf("%s: %v, %v", name, r.Cause, err))
	}
}

// numbersUpTo is what test.bulk says.
func numbersUpTo(upTo int) string {
	var all strings.Builder
	for i := 1; i <= upTo; i++ {
		fmt.Fprintln(&all, i)
	}
	return all.String()
}

// N3: relays, and the servers of their tokens, are killed and restarted one after
// another under sessions whose calls run all the time. Sessions resume, each call
// runs once, nothing that is lost is shown as complete, and the daemon does not
// grow.
func TestSessionsOutliveTheirRelays(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	seed := mathrand.Uint64()
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	ctx, over := context.WithCancel(t.Context())
	defer over()
	var running sync.WaitGroup
	var callers []*caller
	for i := range 4 {
		c := &caller{session: f.recipient(), name: fmt.Sprint("c", i)}
		callers = append(callers, c)
		running.Go(func() {
			for ctx.Err() == nil {
				c.call(t, []string{"test.steps", "test.bulk"}[(i+c.made)%2])
			}
		})
	}
	done := make(map[string]int)
	first := f.daemonMemory()
	for i := range disturbances {
		time.Sleep(disturbEvery)
		done[f.disturb(random)]++
		if i == disturbances/4 {
			first = f.daemonMemory()
		}
	}
	time.Sleep(disturbEvery)
	over()
	running.Wait()
	last := f.daemonMemory()
	made, whole := 0, 0
	for _, c := range callers {
		c.call(t, "test.steps") // each of them is still there
		made, whole = made+c.made, whole+c.whole
		for _, cut := range c.cut {
			t.Errorf("cut: %s", cut)
		}
	}
	names, err := os.ReadFile(f.path("ran"))
	if err != nil {
		t.Fatal(err)
	}
	if ran := ranOnce(t, string(names)); ran < whole {
		t.Errorf("%d calls are said to be complete, and %d ran", whole, ran)
	}
	t.Logf("seed %d, %v: %d calls of 4 sessions, %d whole; the daemon's memory: %d KiB, then %d KiB", seed, done, made, whole, first, last)
	if disturbances >= 30 && last > first*5/4 {
		t.Errorf("the daemon's memory went from %d to %d KiB", first, last)
	}
	f.must("openscope", "audit", "verify")
}

// ranOnce counts the calls that ran, by the list of their names, and holds that
// none of them did twice.
func ranOnce(t *testing.T, names string) int {
	t.Helper()
	times := make(map[string]int)
	for _, name := range strings.Fields(names) {
		if times[name]++; times[name] > 1 {
			t.Errorf("%s ran more than once", name)
		}
	}
	return len(times)
}

// recipient opens a session, whose handle names all nodes, and connects as
// somebody who comes back.
func (f *fleet) recipient() *client.Session {
	f.t.Helper()
	var h handle.Handle
	until(f.t, 30*time.Second, "the daemon stands on all nodes", func() bool {
		f.open("30m", "test.steps", "test.bulk")
		var err error
		if h, err = handle.Parse(f.handle); err != nil {
			f.t.Fatal(err)
		}
		if len(h.Relays) < len(f.relays) {
			f.must("openscope", "share", "revoke", f.id)
		}
		return len(h.Relays) == len(f.relays)
	})
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	session, err := client.Connect(ctx, client.Config{
		Handle: h, Identity: f.identity(), StateDir: f.path("client"), Rand: rand.Reader, Redial: true,
	})
	if err != nil {
		f.t.Fatalf("connecting: %v", err)
	}
	f.t.Cleanup(func() { session.Close() })
	return session
}

// daemonMemory is what the daemon's process has resident, in KiB.
func (f *fleet) daemonMemory() (kib int) {
	f.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.daemon.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(text, &kib); err != nil {
		f.t.Fatal(err)
	}
	return kib
}
