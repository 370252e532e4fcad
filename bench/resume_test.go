package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// clientPath is the client's way to its relay, which a test can take away.
type clientPath struct {
	mu    sync.Mutex
	down  bool
	legs  map[*pathLeg]struct{}
	joins int
}

// pathLeg is a leg that loses what it carries while it is deaf.
type pathLeg struct {
	wire.Leg
	path *clientPath
	deaf bool // guarded by path.mu
	gone chan struct{}
	once sync.Once
}

var errPath = errors.New("there is no network here")

func newClientPath() *clientPath { return &clientPath{legs: make(map[*pathLeg]struct{})} }

func (p *clientPath) join(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
	p.mu.Lock()
	p.joins++
	down := p.down
	p.mu.Unlock()
	if down {
		return nil, errPath
	}
	leg, err := tunnel.Join(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &pathLeg{Leg: leg, path: p, gone: make(chan struct{})}
	p.mu.Lock()
	p.legs[l] = struct{}{}
	p.mu.Unlock()
	return l, nil
}

// lose ends every leg at once, as a restarted relay does.
func (p *clientPath) lose() {
	p.mu.Lock()
	legs := p.legs
	p.legs = make(map[*pathLeg]struct{})
	p.mu.Unlock()
	for l := range legs {
		l.Reset()
	}
}

// silence lets every leg that stands carry nothing more, and tell nobody.
func (p *clientPath) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.legs {
		l.deaf = true
	}
}

func (p *clientPath) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (l *pathLeg) isDeaf() bool {
	l.path.mu.Lock()
	defer l.path.mu.Unlock()
	return l.deaf
}

func (l *pathLeg) Write(b []byte) (int, error) {
	if l.isDeaf() {
		return len(b), nil
	}
	return l.Leg.Write(b)
}

func (l *pathLeg) Read(b []byte) (int, error) {
	n, err := l.Leg.Read(b)
	if l.isDeaf() {
		<-l.gone
		return 0, errPath
	}
	return n, err
}

func (l *pathLeg) Reset() {
	l.once.Do(func() { close(l.gone) })
	l.path.mu.Lock()
	delete(l.path.legs, l)
	l.path.mu.Unlock()
	l.Leg.Reset()
}

// resumeScripts are calls that take their time and leave a line behind for every run.
var resumeScripts = map[string]string{
	"steps": `i=0; while [ $i -lt $2 ]; do i=$((i+1)); echo line $i of $1; echo and $i >&2; sleep $3; done`,
	"bulk":  `exec seq 1 $2`,
	"hold":  `exec sleep 86397`,
}

const resumeVerbs = `
verbs:
  test.steps:
    summary: A line every now and then
    class: read
    executor: exec
    argv: [DIR/steps, "{name}", "{lines}", "{pause}"]
    params:
      name:  {type: string, required: true}
      lines: {type: integer, min: 1, max: 100000, default: 10}
      pause: {type: string, default: "0.1"}
  test.bulk:
    summary: Many bytes, as fast as they come
    class: read
    executor: exec
    argv: [DIR/bulk, "{name}", "{lines}"]
    params:
      name:  {type: string, required: true}
      lines: {type: integer, min: 1, max: 1000000, default: 100000}
  test.hold:
    summary: Do not end
    class: read
    executor: exec
    argv: [DIR/hold, "{name}"]
    params:
      name: {type: string, required: true}
`

const resumeGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.steps}, {verb: test.bulk}, {verb: test.hold}]
    delegate:
      to: [vendor-b]
      verbs: [test.steps, test.bulk, test.hold]
`

// resumable is a world with such verbs, and a handle for them.
func resumable(t testing.TB) (*world, string, handle.Handle) {
	t.Helper()
	w := newWorld(t)
	w.takesItsTime()
	id, h := w.open("10m", "test.steps", "test.bulk", "test.hold")
	return w, id, h
}

// takesItsTime gives a world such verbs.
func (w *world) takesItsTime() {
	w.t.Helper()
	for name, script := range resumeScripts {
		script = fmt.Sprintf("#!/bin/sh\necho \"$1\" >> %s/ran\n%s\n", w.dir, script)
		if err := os.WriteFile(w.path(name), []byte(script), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	w.setRules(resumeVerbs, resumeGrants)
}

// returning is a client that comes back after it has lost its connection.
func (w *world) returning(h handle.Handle, join func(context.Context, tunnel.ClientConfig) (wire.Leg, error)) *client.Session {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	s, err := client.Connect(ctx, client.Config{
		Handle: h, Identity: w.vendor, StateDir: w.path("client"), Rand: rand.Reader, Join: join, Redial: true,
	})
	if err != nil {
		w.t.Fatalf("connecting: %v", err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// steps is what test.steps says on its two streams.
func steps(name string, lines int) (stdout, stderr string) {
	var out, errs strings.Builder
	for i := 1; i <= lines; i++ {
		fmt.Fprintf(&out, "line %d of %s\n", i, name)
		fmt.Fprintf(&errs, "and %d\n", i)
	}
	return out.String(), errs.String()
}

// arrival is a writer that tells when something has come.
type arrival struct {
	io.Writer
	once sync.Once
	came chan struct{}
}

func newArrival(w io.Writer) *arrival { return &arrival{Writer: w, came: make(chan struct{})} }

func (g *arrival) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.came) })
	return g.Writer.Write(p)
}

// runs counts how often a call of this name was executed.
func (w *world) runs(name string) int {
	w.t.Helper()
	return strings.Count("\n"+w.read("ran"), "\n"+name+"\n")
}

func TestACallGoesOnAtTheRightByteAfterItsConnectionWasLost(t *testing.T) {
	for name, lose := range map[string]func(*clientPath){
		"reset":                  (*clientPath).lose,
		"silent":                 (*clientPath).silence,
		"without network for 3s": func(p *clientPath) { p.set(true); p.lose(); time.AfterFunc(3*time.Second, func() { p.set(false) }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _, h := resumable(t)
			p := newClientPath()
			s := w.returning(h, p.join)
			var stdout, stderr bytes.Buffer
			came := newArrival(&stdout)
			done := make(chan struct{})
			var r client.Result
			var err error
			go func() {
				defer close(done)
				r, err = s.Call(t.Context(), "test.steps", params("name", "a", "lines", "80"), came, &stderr)
			}()
			<-came.came
			lose(p)
			select {
			case <-done:
			case <-time.After(40 * time.Second):
				t.Fatal("the call does not end")
			}
			wantOut, wantErr := steps("a", 80)
			if err != nil || r.Cause != call.Exited || !r.Complete || stdout.String() != wantOut || stderr.String() != wantErr {
				t.Errorf("the call ended with %v, complete %v, %v; %d and %d bytes: %s", r.Cause, r.Complete, err, stdout.Len(), stderr.Len(), r.Reason)
			}
			if n := w.runs("a"); n != 1 {
				t.Errorf("it ran %d times", n)
			}
			if log := w.read("audit.log"); !strings.Contains(log, `"kind":"resume"`) {
				t.Error("the log does not say that the call was taken over")
			}
		})
	}
}

func TestAFloodGoesOnAtTheRightByteHoweverOftenItsConnectionIsLost(t *testing.T) {
	t.Parallel()
	w, _, h := resumable(t)
	p := newClientPath()
	s := w.returning(h, p.join)
	const lines = 300_000
	sum, want := sha256.New(), sha256.New()
	for i := 1; i <= lines; i++ {
		fmt.Fprintf(want, "%d\n", i)
	}
	lost := 0
	stdout := &chopper{Writer: sum, every: 150 << 10, chop: func() { lost++; p.lose() }}
	r, err := s.Call(t.Context(), "test.bulk", params("name", "b", "lines", fmt.Sprint(lines)), stdout, io.Discard)
	if err != nil || r.Cause != call.Exited || !r.Complete || !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		t.Errorf("the call ended with %v, complete %v, %v: %s", r.Cause, r.Complete, err, r.Reason)
	}
	if n := w.runs("b"); n != 1 || lost < 5 {
		t.Errorf("it ran %d times, and %d connections were lost", n, lost)
	}
}

// chopper does something every so many bytes.
type chopper struct {
	io.Writer
	every, n int
	chop     func()
}

func (c *chopper) Write(p []byte) (int, error) {
	before := c.n / c.every
	c.n += len(p)
	if c.n/c.every > before {
		c.chop()
	}
	return c.Writer.Write(p)
}

// read is a file of the world's folder, empty where there is none.
func (w *world) read(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return string(text)
}
