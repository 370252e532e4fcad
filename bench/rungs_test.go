package bench

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noUDP drops what goes to and from the relay by UDP, without a word to anybody.
const noUDP = `table inet blocked {
	chain incoming {
		type filter hook input priority 0;
		udp dport 4433 drop
		udp sport 4433 drop
	}
}
`

// blockable is relay, daemon and client in one network of their own, of which
// the test is the firewall.
func blockable(t *testing.T, before func(*machine)) (*machine, *site) {
	t.Helper()
	needsMachines(t)
	m := holdNetwork(t, "closed")
	before(m)
	return m, siteOn(t, m, "127.0.0.1:4433")
}

// siteOn is relay and daemon on one machine, at the address, with verbs that take
// their time.
func siteOn(t *testing.T, m *machine, address string) *site {
	t.Helper()
	s := &site{t: t, dir: protectedDir(t), listen: address}
	s.relay = startOn(t, m, nil, "openscope-relay", "serve", "--listen", s.listen, "--self-signed", "--state", s.path("relay"))
	until(t, 20*time.Second, "the relay prints its pin", func() bool { return strings.Contains(s.relay.out.String(), "\npin ") })
	_, pin, _ := strings.Cut(s.relay.out.String(), "\npin ")
	pin, _, _ = strings.Cut(pin, "\n")
	s.write("token", s.must("openscope-relay", "token", "new", "bench", "--state", s.path("relay")), 0o600)
	s.must("openscope", "init", "--dir", s.path("etc"), "--relay", s.listen, "--relay-pin", pin, "--token", "@"+s.path("token"))
	s.slowVerbs()
	s.daemon = startOn(t, m, s.env(), "openscope", "daemon")
	s.must("openscope-reflect-client", "keygen")
	until(t, 20*time.Second, "the daemon runs", func() bool { _, _, code := run(t, s.env(), "openscope", "status"); return code == 0 })
	s.must("openscope", "recipient", "add", "vendor-b", strings.TrimSpace(s.must("openscope-reflect-client", "key")))
	return s
}

// slowVerbs gives the site the verbs of the tests of resuming.
func (s *site) slowVerbs() {
	s.t.Helper()
	for name, script := range resumeScripts {
		script = fmt.Sprintf("#!/bin/sh\necho \"$1\" >> %s/ran\n%s\n", s.dir, script)
		if err := os.WriteFile(s.path(name), []byte(script), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("etc/verbs.yaml", strings.ReplaceAll(strings.ReplaceAll(resumeVerbs, "class: read", "class: read\n    timeout: 30m"), "DIR", s.dir), 0o644)
	s.write("etc/grants.yaml", strings.ReplaceAll(resumeGrants, "USER", me.Username), 0o644)
}

func (s *site) way() string {
	out, _, _ := run(s.t, s.env(), "openscope", "status", "--json")
	for _, rung := range []string{"quic", "tcp", "proxy"} {
		if strings.Contains(out, `"rung":"`+rung+`"`) {
			return rung
		}
	}
	return ""
}

func dropUDP(t *testing.T, m *machine) {
	t.Helper()
	if out, code := m.network(noUDP, "nft", "-f", "-"); code != 0 {
		t.Skipf("there is no firewall to be had here: exit %d\n%s", code, out)
	}
}

func TestWithoutUDPTheFirstCallIsBackWithinFourSeconds(t *testing.T) {
	t.Parallel()
	m, s := blockable(t, func(m *machine) { dropUDP(t, m) })
	until(t, 10*time.Second, "the daemon has reached the relay by TCP", func() bool { return s.way() == "tcp" })
	s.open("5m", "test.steps")
	call := m.command(filepath.Join(programs, "openscope-reflect-client"), "call", "test.steps", "name=first", "lines=1", "pause=0")
	call.Env = s.env()
	began := time.Now()
	out, err := call.CombinedOutput()
	took := time.Since(began)
	if err != nil || !strings.Contains(string(out), "line 1 of first\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("the first call took %v", took)
	if took > 4*time.Second {
		t.Errorf("the first call took %v", took)
	}
}

// clientWay is how the program outside reaches the relay just now: by a TCP
// connection, or else by none.
func (s *site) clientWay(m *machine, p *process) string {
	s.t.Helper()
	for line := range strings.Lines(m.must("ss", "-H", "-t", "-n", "-p", "state", "established", "dport", "=", ":4433")) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", p.cmd.Process.Pid)) {
			return "tcp"
		}
	}
	return "quic"
}

// stepping is a call that prints a line every 100 ms, each with its number.
func (s *site) stepping(m *machine, name string, lines int) (p *process, seen func() int) {
	p = startOn(s.t, m, s.env(), "openscope-reflect-client", "call", "test.steps", "name="+name, fmt.Sprint("lines=", lines), "pause=0.1")
	return p, func() int { return strings.Count(p.out.String(), " of "+name+"\n") }
}

// whole demands that a stepping call has ended, well, once, and with every line
// once and in its order.
func (s *site) whole(p *process, name string, lines int) {
	s.t.Helper()
	<-p.done
	out, at := p.out.String(), 0
	for i := 1; i <= lines; i++ {
		next := strings.Index(out[at:], fmt.Sprintf("line %d of %s\n", i, name))
		if next < 0 {
			s.t.Fatalf("line %d is missing behind byte %d of %d: exit %d: %s", i, at, len(out), p.cmd.ProcessState.ExitCode(), out[at:])
		}
		at += next
	}
	if code, n := p.cmd.ProcessState.ExitCode(), strings.Count(out, " of "+name+"\n"); code != 0 || n != lines {
		s.t.Errorf("exit %d, %d lines of %d", code, n, lines)
	}
	ran, err := os.ReadFile(s.path("ran"))
	if n := strings.Count("\n"+string(ran), "\n"+name+"\n"); err != nil || n != 1 {
		s.t.Errorf("%s ran %d times, %v", name, n, err)
	}
}

// pauses watches a call's output, and returns the longest time that nothing came.
func pauses(seen func() int, stop <-chan struct{}) <-chan time.Duration {
	result := make(chan time.Duration, 1)
	go func() {
		var longest time.Duration
		before, last := seen(), time.Now()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				result <- max(longest, time.Since(last))
				return
			case <-tick.C:
			}
			if now := seen(); now != before {
				longest = max(longest, time.Since(last))
				before, last = now, time.Now()
			}
		}
	}()
	return result
}

func TestUDPThatIsBlockedInMidSessionCostsTenSecondsAndIsClimbedBackTo(t *testing.T) {
	t.Parallel()
	m, s := blockable(t, func(*machine) {})
	until(t, 10*time.Second, "the daemon has reached the relay by QUIC", func() bool { return s.way() == "quic" })
	s.open("5m", "test.steps")
	const lines = 700 // it outlasts the way back up
	p, seen := s.stepping(m, "running", lines)
	until(t, 20*time.Second, "the call runs", func() bool { return seen() > 5 })
	dropUDP(t, m)
	began, before := time.Now(), seen()
	until(t, 30*time.Second, "its output goes on", func() bool { return seen() > before+20 })
	took := time.Since(began)
	t.Logf("resumed within %v by %s", took, s.way())
	if took > 10*time.Second || s.way() != "tcp" || s.clientWay(m, p) != "tcp" {
		t.Errorf("resumed after %v by %s, the client by %s", took, s.way(), s.clientWay(m, p))
	}
	stop := make(chan struct{})
	paused := pauses(seen, stop)
	if out, code := m.network("", "nft", "delete", "table", "inet", "blocked"); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	began = time.Now()
	until(t, 60*time.Second, "both ends are back on QUIC", func() bool { return s.way() == "quic" && s.clientWay(m, p) == "quic" })
	t.Logf("back on QUIC within %v", time.Since(began))
	before = seen()
	until(t, 10*time.Second, "its output goes on", func() bool { return seen() > before+10 })
	close(stop)
	longest := <-paused
	t.Logf("on the way up, nothing came for %v at most", longest)
	if longest > 3*time.Second {
		t.Errorf("on the way up nothing came for %v", longest)
	}
	s.whole(p, "running", lines)
}

// A middlebox that forgets a TCP connection says so to nobody.
func TestATCPConnectionThatGoesSilentCostsTenSeconds(t *testing.T) {
	t.Parallel()
	m, s := blockable(t, func(m *machine) { dropUDP(t, m) })
	until(t, 10*time.Second, "the daemon has reached the relay by TCP", func() bool { return s.way() == "tcp" })
	s.open("5m", "test.steps")
	const lines = 300
	p, seen := s.stepping(m, "running", lines)
	until(t, 20*time.Second, "the call runs", func() bool { return seen() > 5 })
	var ports []string
	for line := range strings.Lines(m.must("ss", "-H", "-t", "-n", "state", "established", "dport", "=", ":4433")) {
		_, port, _ := strings.Cut(strings.Fields(line)[2], ":")
		ports = append(ports, port)
	}
	if len(ports) != 2 { // the daemon's and the client's
		t.Fatalf("connections: %q", ports)
	}
	gone := "{ " + strings.Join(ports, ", ") + " }"
	rules := "table inet forgotten { chain incoming { type filter hook input priority 0; tcp sport " + gone + " drop; tcp dport " + gone + " drop; }; }"
	if out, code := m.network(rules, "nft", "-f", "-"); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	began, before := time.Now(), seen()
	until(t, 30*time.Second, "its output goes on", func() bool { return seen() > before+20 })
	took := time.Since(began)
	t.Logf("resumed within %v", took)
	if took > 10*time.Second {
		t.Errorf("resumed after %v", took)
	}
	s.whole(p, "running", lines)
}
