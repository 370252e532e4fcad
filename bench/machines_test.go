package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a network, and where it has a root folder of its own, a whole
// system: namespaces, with a process that keeps them.
type machine struct {
	t    *testing.T
	name string
	init int // the first process in there
	own  bool
}

// holdNetwork is a machine that shares everything but its network with this one.
func holdNetwork(t *testing.T, name string) *machine {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo up && exec cat")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problem lockedBuffer
	cmd.Stderr = &problem
	alive, err := cmd.StdinPipe() // its end is the machine's
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("there are no namespaces to be had here: ", err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait()
	})
	var up [3]byte
	if _, err := out.Read(up[:]); err != nil {
		t.Skip("there are no network namespaces to be had here: ", problem.String())
	}
	return &machine{t: t, name: name, init: cmd.Process.Pid}
}

// command runs a program there.
func (m *machine) command(argv ...string) *exec.Cmd {
	enter := []string{"-t", fmt.Sprint(m.init), "-n"}
	if m.own {
		enter = []string{"-t", fmt.Sprint(m.init), "-a", "-r", "-w"}
	}
	return exec.Command("nsenter", append(append(enter, "--"), argv...)...)
}

// try runs a command line there, and returns what it printed and its exit code.
func (m *machine) try(stdin string, argv ...string) (string, int) {
	m.t.Helper()
	cmd := m.command(argv...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	cmd.Env = []string{"PATH=" + programs + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatalf("%s: %v: %v", m.name, argv, err)
	}
	return out.String(), 0
}

// must runs a command line that has to succeed.
func (m *machine) must(argv ...string) string {
	m.t.Helper()
	out, code := m.try("", argv...)
	if code != 0 {
		m.t.Fatalf("%s: %s: exit %d\n%s", m.name, strings.Join(argv, " "), code, out)
	}
	return out
}

// network runs a program of this machine in the network of that one, and of
// this one's processes' names: ip has to be told which namespace by a number.
func (m *machine) network(stdin string, argv ...string) (string, int) {
	m.t.Helper()
	outer := &machine{t: m.t, name: m.name, init: m.init}
	return outer.try(stdin, argv...)
}

// Addresses of the three networks: the closed one and the outside meet only at
// the relay, which forwards no packet.
const (
	relayToInside, insideAddress   = "10.71.1.1", "10.71.1.2"
	relayToOutside, outsideAddress = "10.71.2.1", "10.71.2.2"
)

// onlyOut is the closed network's firewall: whatever answers comes in, and
// nothing else.
const onlyOut = `table inet closed {
	chain incoming {
		type filter hook input priority 0; policy drop;
		iif lo accept
		ct state established,related accept
		counter name unasked
	}
	counter unasked { }
}
`

// connect puts the three into their networks and closes the one inside.
func connect(t *testing.T, relay, inside, outside *machine) {
	t.Helper()
	for i, link := range []struct {
		to            *machine
		ours, address string
	}{{inside, relayToInside, insideAddress}, {outside, relayToOutside, outsideAddress}} {
		near := fmt.Sprintf("net%d", i)
		for _, step := range []struct {
			on   *machine
			line string
		}{
			{relay, fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", near, link.to.init)},
			{relay, "ip address add " + link.ours + "/24 dev " + near},
			{relay, "ip link set " + near + " up"},
			{link.to, "ip address add " + link.address + "/24 dev eth0"},
			{link.to, "ip link set eth0 up"},
		} {
			if out, code := step.on.network("", strings.Fields(step.line)...); code != 0 {
				t.Fatalf("%s: exit %d\n%s", step.line, code, out)
			}
		}
	}
	if out, code := inside.network(onlyOut, "nft", "-f", "-"); code != 0 {
		t.Skipf("there is no firewall to be had here: exit %d\n%s", code, out)
	}
	// It holds: what nobody listens to is not even refused.
	if out, code := relay.network("", "timeout", "0.5", "bash", "-c", "exec 3<>/dev/tcp/"+insideAddress+"/9"); code != 124 {
		t.Fatalf("the closed network answers: exit %d\n%s", code, out)
	}
}

func needsMachines(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make networks")
	}
	for _, program := range []string{"unshare", "nsenter", "ip", "nft", "ss"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("a program to make networks with is missing: ", err)
		}
	}
}

// listening is what ss calls listening in the closed network, each TCP and UDP
// socket and each socket with a path, except those of programs that ran before.
func (m *machine) listening() (ip, paths []string) {
	m.t.Helper()
	for line := range strings.Lines(m.must("ss", "-H", "-l", "-n", "-t", "-u", "-p")) {
		ip = append(ip, strings.TrimSpace(line))
	}
	for line := range strings.Lines(m.must("ss", "-H", "-l", "-n", "-x", "-p")) {
		paths = append(paths, strings.TrimSpace(line))
	}
	return ip, paths
}

// onlyTheWayOut fails where something in the closed network could be connected
// to from elsewhere: no TCP socket listens, and no UDP socket stands but the
// one that the daemon reaches its relay from.
func (m *machine) onlyTheWayOut() {
	m.t.Helper()
	ip, paths := m.listening()
	udp := 0
	for _, socket := range ip {
		if !strings.HasPrefix(socket, "udp") || !strings.Contains(socket, `"openscope"`) {
			m.t.Errorf("something listens in the closed network: %s", socket)
		}
		udp++
	}
	if udp > 1 {
		m.t.Errorf("the daemon has %d UDP sockets, for one relay:\n%s", udp, strings.Join(ip, "\n"))
	}
	control := 0
	for _, socket := range paths {
		if !strings.Contains(socket, `"openscope"`) {
			continue // the machine's own
		}
		if !strings.Contains(socket, "openscope.sock") {
			m.t.Errorf("the daemon listens on %s", socket)
		}
		control++
	}
	if control != 1 {
		m.t.Errorf("%d control sockets:\n%s", control, strings.Join(paths, "\n"))
	}
}

func TestNothingListensInTheClosedNetworkButTheControlSocket(t *testing.T) {
	needsMachines(t)
	t.Parallel()
	relay, inside, outside := holdNetwork(t, "relay"), holdNetwork(t, "inside"), holdNetwork(t, "outside")
	connect(t, relay, inside, outside)

	s := &site{t: t, dir: protectedDir(t), listen: "0.0.0.0:4433"}
	s.relay = startOn(t, relay, nil, "openscope-relay", "serve", "--listen", s.listen, "--self-signed", "--state", s.path("relay"), "--public-address", relayToOutside+":4433")
	until(t, 20*time.Second, "the relay prints its pin", func() bool { return strings.Contains(s.relay.out.String(), "\npin ") })
	_, pin, _ := strings.Cut(s.relay.out.String(), "\npin ")
	pin, _, _ = strings.Cut(pin, "\n")
	token := s.must("openscope-relay", "token", "new", "bench", "--state", s.path("relay"))
	s.write("token", token, 0o600)
	s.must("openscope", "init", "--dir", s.path("etc"), "--relay", relayToInside+":4433", "--relay-pin", pin, "--token", "@"+s.path("token"))
	s.write("etc/verbs.yaml", strings.ReplaceAll(testVerbs, "DIR", s.dir), 0o644)
	s.write("etc/grants.yaml", strings.ReplaceAll(testGrants, "USER", "root"), 0o644)
	s.daemon = startOn(t, inside, s.env(), "openscope", "daemon")
	until(t, 20*time.Second, "the daemon has reached the relay", func() bool {
		out, _, code := run(t, s.env(), "openscope", "status", "--json")
		return code == 0 && strings.Contains(out, `"connected":true`)
	})
	s.must("openscope-reflect-client", "keygen")
	s.must("openscope", "recipient", "add", "vendor-b", strings.TrimSpace(s.must("openscope-reflect-client", "key")))
	s.open("5m", "test.echo")
	call := outside.command(filepath.Join(programs, "openscope-reflect-client"), "call", "test.echo", "text=through")
	call.Env = s.env()
	if out, err := call.CombinedOutput(); err != nil || string(out) != "through\n" {
		t.Fatalf("from outside: %v\n%s", err, out)
	}
	inside.onlyTheWayOut()
	s.must("openscope", "share", "revoke", s.id)
}

// startOn starts a program on a machine and takes it down with the test.
func startOn(t *testing.T, m *machine, env []string, program string, args ...string) *process {
	t.Helper()
	cmd := m.command(append([]string{filepath.Join(programs, program)}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, env...)
	return startCommand(t, cmd)
}
