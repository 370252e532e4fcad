package bench

import (
	"fmt"
	"os"
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
	s := &site{t: t, dir: protectedDir(t), listen: "127.0.0.1:4433"}
	s.relay = startOn(t, m, nil, "openscope-relay", "serve", "--listen", s.listen, "--self-signed", "--state", s.path("relay"))
	until(t, 20*time.Second, "the relay prints its pin", func() bool { return strings.Contains(s.relay.out.String(), "\npin ") })
	_, pin, _ := strings.Cut(s.relay.out.String(), "\npin ")
	pin, _, _ = strings.Cut(pin, "\n")
	s.write("token", s.must("openscope-relay", "token", "new", "bench", "--state", s.path("relay")), 0o600)
	s.must("openscope", "init", "--dir", s.path("etc"), "--relay", s.listen, "--relay-pin", pin, "--token", "@"+s.path("token"))
	for name, script := range resumeScripts {
		script = fmt.Sprintf("#!/bin/sh\necho \"$1\" >> %s/ran\n%s\n", s.dir, script)
		if err := os.WriteFile(s.path(name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write("etc/verbs.yaml", strings.ReplaceAll(strings.Replace(resumeVerbs, "class: read", "class: read\n    timeout: 5m", 1), "DIR", s.dir), 0o644)
	s.write("etc/grants.yaml", strings.ReplaceAll(resumeGrants, "USER", "root"), 0o644)
	s.daemon = startOn(t, m, s.env(), "openscope", "daemon")
	s.must("openscope-reflect-client", "keygen")
	until(t, 20*time.Second, "the daemon runs", func() bool { _, _, code := run(t, s.env(), "openscope", "status"); return code == 0 })
	s.must("openscope", "recipient", "add", "vendor-b", strings.TrimSpace(s.must("openscope-reflect-client", "key")))
	return m, s
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

func TestUDPThatIsBlockedInMidSessionCostsTenSecondsAndIsClimbedBackTo(t *testing.T) {
	t.Parallel()
	m, s := blockable(t, func(*machine) {})
	until(t, 10*time.Second, "the daemon has reached the relay by QUIC", func() bool { return s.way() == "quic" })
	s.open("5m", "test.steps")
	const lines = 700 // it outlasts the way back up
	p := startOn(t, m, s.env(), "openscope-reflect-client", "call", "test.steps", "name=running", fmt.Sprint("lines=", lines), "pause=0.1")
	seen := func() int { return strings.Count(p.out.String(), " of running\n") }
	until(t, 20*time.Second, "the call runs", func() bool { return seen() > 5 })
	dropUDP(t, m)
	began, before := time.Now(), seen()
	until(t, 30*time.Second, "its output goes on", func() bool { return seen() > before+20 })
	took := time.Since(began)
	t.Logf("resumed within %v by %s", took, s.way())
	if took > 10*time.Second || s.way() != "tcp" {
		t.Errorf("resumed after %v by %s", took, s.way())
	}
	if out, code := m.network("", "nft", "delete", "table", "inet", "blocked"); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	began = time.Now()
	until(t, 60*time.Second, "the daemon is back on QUIC", func() bool { return s.way() == "quic" })
	t.Logf("back on QUIC within %v", time.Since(began))
	<-p.done
	out := p.out.String()
	at := 0
	for i := 1; i <= lines; i++ { // every line, once, in its order
		next := strings.Index(out[at:], fmt.Sprintf("line %d of running\n", i))
		if next < 0 {
			t.Fatalf("line %d is missing behind byte %d of %d: exit %d: %s", i, at, len(out), p.cmd.ProcessState.ExitCode(), out[at:])
		}
		at += next
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || seen() != lines {
		t.Errorf("exit %d, %d lines", code, seen())
	}
	if ran, err := os.ReadFile(s.path("ran")); err != nil || string(ran) != "running\n" {
		t.Errorf("it ran as %q, %v", ran, err)
	}
}
