package relay_test

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// program is the relay as a process of its own.
type program struct {
	*node
	cmd *exec.Cmd
}

// startProgram builds and runs openscope-relay.
func startProgram(t testing.TB, args ...string) *program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "openscope-relay")
	build := exec.Command("go", "build", "-o", binary, "openscope/relay/cmd/openscope-relay")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := &program{node: &node{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}}
	var err error
	if p.tokens, err = relay.OpenTokenFile(filepath.Join(p.dir, "tokens")); err != nil {
		t.Fatal(err)
	}
	p.run(binary, args...)
	t.Cleanup(p.killProgram)
	return p
}

func (p *program) run(binary string, args ...string) {
	p.t.Helper()
	p.cmd = exec.Command(binary, append([]string{"serve", "--self-signed", "--state", p.dir, "--listen", p.address, "--admin", "off"}, args...)...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			p.address = address
		}
		if strings.HasPrefix(lines.Text(), "pin ") {
			break
		}
	}
	if _, p.pin, err = relay.SelfSigned(p.dir, rand.Reader, time.Now()); err != nil {
		p.t.Fatal(err)
	}
}

// killProgram is kill -9.
func (p *program) killProgram() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// resident is the process's memory, and busy the time it has computed.
func (p *program) resident() int64 {
	p.t.Helper()
	fields := strings.Fields(p.proc("statm"))
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func (p *program) busy() time.Duration {
	p.t.Helper()
	text := p.proc("stat")
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func (p *program) proc(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// Bars of an idle relay.
const (
	memoryPerSession = 90 << 10
	idleCPU          = 0.08 // of a core
	// beatEvery is as often as the two ends of an idle session exchange a record.
	beatEvery        = 20 * time.Second
	sessionsOfDaemon = 500
)

// L1: idle sessions, each with a client connection of its own, cost little and
// none is dropped.
func TestIdleSessionsAreHeld(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < idleSessions+200 {
		t.Skipf("%d open files are allowed: each client needs one", files.Cur)
	}
	p := startProgram(t, "--max-connections-per-address", "20000", "--handshake-rate-per-address", "5000", "--handshake-rate", "5000", "--token-joins", "10000")
	before := p.resident()
	type ends struct{ client, daemon wire.Leg }
	var all []ends
	var d *tunnel.Daemon
	for i := range idleSessions {
		if i%sessionsOfDaemon == 0 {
			d = p.daemon(p.token("idle-" + strconv.Itoa(i)))
		}
		client, daemon, _ := p.pair(newSession(t).standOn(t, d), d)
		bothWays(t, client, daemon)
		all = append(all, ends{client, daemon})
	}
	record := make([]byte, 279)
	beat := func(e ends) {
		timed(t, e.client)
		timed(t, e.daemon)
		passes(t, e.client, e.daemon, string(record))
		passes(t, e.daemon, e.client, string(record))
	}
	computed, began := p.busy(), time.Now()
	for i := 0; time.Since(began) < idleTime; i++ {
		beat(all[i%len(all)])
		time.Sleep(time.Until(began.Add(time.Duration(i) * beatEvery / time.Duration(len(all)))))
	}
	cpu := float64(p.busy()-computed) / float64(time.Since(began))
	each := (p.resident() - before) / idleSessions
	t.Logf("%d sessions, %v: %.1f KiB each, %.1f %% of a core", idleSessions, idleTime, float64(each)/1024, 100*cpu)
	for _, e := range all { // not one dropped
		beat(e)
	}
	if fullLoad && each > memoryPerSession {
		t.Errorf("a session costs %d bytes", each)
	}
	if fullLoad && cpu > idleCPU {
		t.Errorf("idle, it takes %.1f %% of a core", 100*cpu)
	}
}
