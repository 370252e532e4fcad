package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/client"
	"openscope/daemon"
	"openscope/relay"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// world is a relay, a daemon and what a recipient needs, in this process, on
// real sockets, with real commands.
type world struct {
	t      testing.TB
	dir    string
	relay  wire.Relay
	daemon *daemon.Daemon
	vendor *handle.RecipientIdentity
	clock  *steppedClock
	nodes  []func() // each ends one relay; relay is the first
	stop   func()   // ends relays and daemon, and waits for every goroutine of theirs
}

// steppedClock is the machine's clocks, and what a test has added to each.
type steppedClock struct {
	wall, boot atomic.Int64 // nanoseconds added
	began      time.Time
}

func newSteppedClock() *steppedClock { return &steppedClock{began: time.Now()} }

func (c *steppedClock) Wall() time.Time { return time.Now().Add(time.Duration(c.wall.Load())) }

func (c *steppedClock) Boot() time.Duration {
	return time.Hour + time.Since(c.began) + time.Duration(c.boot.Load())
}

func (c *steppedClock) step(wall, boot time.Duration) {
	c.wall.Add(int64(wall))
	c.boot.Add(int64(boot))
}

const testVerbs = `
verbs:
  test.echo:
    summary: Say it again
    class: read
    executor: exec
    argv: [/bin/echo, "{text}"]
    params:
      text: {type: string, required: true}
  test.mark:
    summary: Leave one new file behind for every run
    class: change
    executor: exec
    argv: [/bin/mktemp, DIR/mark.XXXXXX]
  test.follow:
    summary: Follow a file that grows for ever
    class: read
    executor: exec
    argv: [/usr/bin/tail, -n, "1", -f, DIR/growing]
  test.count:
    summary: Two million bytes, as fast as they come
    class: read
    executor: exec
    argv: [/usr/bin/seq, "1", "300000"]
  test.secret:
    summary: Never shared
    class: read
    executor: exec
    argv: [/bin/echo, never]
`

const testGrants = `
agents:
  you:
    users: [USER]
    allow:
      - verb: test.echo
      - verb: test.mark
      - verb: test.follow
      - verb: test.count
      - verb: test.secret
    delegate:
      to: [vendor-b]
      verbs: [test.echo, test.mark, test.follow, test.count]
      bearer: true
`

// newWorld starts everything; it is all gone when the test ends.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, worldConfig{})
}

// worldConfig is how a world differs from others.
type worldConfig struct {
	nodes int // relays; 0 is one
	// netProcess has the daemon's net half be a process: this program, started
	// again.
	netProcess bool
	relay      func(*relay.Config) // changes what each relay is given
	// behind is by which address, and name, a relay is reached.
	behind func(wire.Relay) wire.Relay
}

func newWorldWith(t testing.TB, cfg worldConfig) *world {
	t.Helper()
	w := &world{t: t, dir: protectedDir(t), clock: newSteppedClock()}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)

	tokens, token := newTokens(t, w.dir)
	var relays []wire.Relay
	for i := range max(cfg.nodes, 1) {
		serving, end := context.WithCancel(ctx)
		w.nodes = append(w.nodes, end)
		r := startRelay(t, serving, &running, filepath.Join(w.dir, fmt.Sprint("node-", i)), tokens, cfg.relay)
		if cfg.behind != nil {
			r = cfg.behind(r)
		}
		relays = append(relays, r)
	}
	w.relay = relays[0]
	w.vendor = newIdentity(t)
	w.writeRules(testVerbs, testGrants)
	w.write("recipients.yaml", fmt.Sprintf("recipients:\n  vendor-b: {key: %s}\n", w.vendor.Public().Text()))
	w.write("growing", "one line\n")
	if err := daemon.NewIdentityFile(w.path("identity.key"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	var err error
	w.daemon, err = daemon.New(daemon.Config{
		Relays: relays, Token: token, StateDir: w.dir, Socket: w.path("openscope.sock"),
		Grants: w.path("grants.yaml"), Verbs: w.path("verbs.yaml"), Recipients: w.path("recipients.yaml"),
		Clock: w.clock, InProcess: !cfg.netProcess,
	})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := w.daemon.Run(ctx); err != nil {
			t.Errorf("the daemon: %v", err)
		}
	})
	select {
	case <-w.daemon.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon does not get ready")
	}
	return w
}

// writeRules writes verbs, in which DIR is the world's folder, and grants, in which
// USER is whoever runs the tests. A daemon that runs takes them with setRules.
func (w *world) writeRules(verbs, grants string) {
	w.t.Helper()
	me, err := user.Current()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("verbs.yaml", strings.ReplaceAll(verbs, "DIR", w.dir))
	w.write("grants.yaml", strings.ReplaceAll(grants, "USER", me.Username))
}

func (w *world) setRules(verbs, grants string) {
	w.t.Helper()
	w.writeRules(verbs, grants)
	if err := w.daemon.Reload(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// protectedDir is a temporary folder as the daemon demands its own: no parent
// of it may be writable by others unless it is sticky, which /tmp is.
func protectedDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "openscope-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newTokens(t testing.TB, dir string) (*relay.TokenFile, wire.Token) {
	t.Helper()
	file, err := relay.OpenTokenFile(filepath.Join(dir, "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := file.Add("bench", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return file, token
}

func startRelay(t testing.TB, ctx context.Context, running *sync.WaitGroup, dir string, tokens relay.Tokens, change func(*relay.Config)) wire.Relay {
	t.Helper()
	certificate, pin, err := relay.SelfSigned(filepath.Join(dir, "relay"), rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	conn, listener, err := relay.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:        conn, Listener: listener, Tokens: tokens,
	}
	if change != nil {
		change(&cfg)
	}
	r, err := relay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := r.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the relay: %v", err)
		}
	})
	return wire.Relay{Address: conn.LocalAddr().String(), Pin: &pin}
}

func newIdentity(t testing.TB) *handle.RecipientIdentity {
	t.Helper()
	id, err := handle.NewRecipientIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// open opens a session for vendor-b with the issuer's own command, and returns
// its id and parsed handle.
func (w *world) open(ttl string, specs ...string) (id string, h handle.Handle) {
	w.t.Helper()
	args := []string{"share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--ttl", ttl}
	for _, spec := range specs {
		args = append(args, "--verb", spec)
	}
	return w.opened(args...)
}

// opened runs a share open command line that must work.
func (w *world) opened(args ...string) (id string, h handle.Handle) {
	w.t.Helper()
	var opened struct{ ID, Handle string }
	if err := json.Unmarshal([]byte(w.issuer(0, args...)), &opened); err != nil {
		w.t.Fatal(err)
	}
	h, err := handle.Parse(opened.Handle)
	if err != nil {
		w.t.Fatalf("the handle: %v", err)
	}
	return opened.ID, h
}

// issuer runs the openscope command against this world's daemon, demands the
// exit code, and returns its stdout.
func (w *world) issuer(code int, args ...string) string {
	w.t.Helper()
	stdout, stderr, got := run(w.t, w.env(), "openscope", args...)
	if got != code {
		w.t.Fatalf("openscope %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

func (w *world) env() []string {
	return []string{"OPENSCOPE_SOCKET=" + w.path("openscope.sock"), "OPENSCOPE_CONFIG=" + w.path("openscope.yaml")}
}

// connect is the recipient's client; join, where it is given, stands between
// it and the relay.
func (w *world) connect(h handle.Handle, join func(context.Context, tunnel.ClientConfig) (wire.Leg, error)) (*client.Session, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return client.Connect(ctx, client.Config{
		Handle: h, Identity: w.vendor, StateDir: w.path("client"), Rand: rand.Reader, Join: join,
	})
}

func (w *world) mustConnect(h handle.Handle) *client.Session {
	w.t.Helper()
	s, err := w.connect(h, nil)
	if err != nil {
		w.t.Fatalf("connecting: %v", err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// marks counts how often test.mark has run.
func (w *world) marks() int {
	w.t.Helper()
	found, err := filepath.Glob(w.path("mark.*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(found)
}

// until polls what cannot be waited for, and fails after the given time.
func until(t testing.TB, within time.Duration, what string, met func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

func params(pairs ...string) []call.Param {
	var all []call.Param
	for i := 0; i+1 < len(pairs); i += 2 {
		all = append(all, call.Param{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}
