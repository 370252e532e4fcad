package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// site is the three programs as separate processes, configured with their own
// commands, as an operator, an issuer and a recipient would.
type site struct {
	t      *testing.T
	dir    string
	relay  *process
	daemon *process
	pin    string
	listen string
	handle string
	words  string
	id     string
}

// process is a running program and what it has printed.
type process struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
}

// lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startProcess starts a program and takes it down with the test.
func startProcess(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	return startCommand(t, command(env, program, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	program := cmd.Args[0]
	p := &process{cmd: cmd, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			t.Errorf("%s does not end on SIGTERM\n%s", program, p.out.String())
		}
	})
	return p
}

// newSite sets up relay, daemon and vendor, with the verbs and grants of the
// in-process world.
func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteBehind(t, func(address string) string { return address })
}

// newSiteBehind is one whose relay is reached, and named, by another address.
func newSiteBehind(t *testing.T, behind func(address string) string) *site {
	t.Helper()
	s := &site{t: t, dir: protectedDir(t)}
	if err := os.Chmod(s.dir, 0o755); err != nil { // other users must reach the socket
		t.Fatal(err)
	}
	s.startRelay()
	token := regexp.MustCompile(`ost1[0-9a-z]+`).FindString(s.must("openscope-relay", "token", "new", "bench", "--state", s.path("relay")))
	if token == "" {
		t.Fatal("token new prints no token")
	}
	s.write("token", token+"\n", 0o600)
	s.must("openscope", "init", "--dir", s.path("etc"), "--relay", behind(s.listen), "--relay-pin", s.pin, "--token", "@"+s.path("token"))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.write("etc/verbs.yaml", strings.ReplaceAll(testVerbs, "DIR", s.dir), 0o644)
	s.write("etc/grants.yaml", strings.ReplaceAll(testGrants, "USER", me.Username), 0o644)
	s.write("growing", "a line that only the recipient may read: canary-output-4711\n", 0o644)
	s.startDaemon()
	s.must("openscope-reflect-client", "keygen")
	key := strings.TrimSpace(s.must("openscope-reflect-client", "key"))
	s.must("openscope", "recipient", "add", "vendor-b", key)
	return s
}

func (s *site) startRelay() {
	s.t.Helper()
	if s.listen == "" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			s.t.Fatal(err)
		}
		s.listen = conn.LocalAddr().String()
		conn.Close()
	}
	s.relay = startProcess(s.t, nil, "openscope-relay", "serve", "--listen", s.listen, "--self-signed", "--state", s.path("relay"))
	pin := regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	until(s.t, 10*time.Second, "the relay prints its pin", func() bool {
		s.pin = pin.FindString(s.relay.out.String())
		return s.pin != ""
	})
}

func (s *site) startDaemon() {
	s.t.Helper()
	s.daemon = startProcess(s.t, s.env(), "openscope", "daemon")
	until(s.t, 15*time.Second, "the daemon has reached the relay", func() bool {
		out, _, code := run(s.t, s.env(), "openscope", "status", "--json")
		return code == 0 && strings.Contains(out, `"connected":true`)
	})
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// read is a file of the site's folder.
func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *site) env() []string {
	return []string{
		"OPENSCOPE_CONFIG=" + s.path("etc/openscope.yaml"), "OPENSCOPE_SOCKET=" + s.path("etc/openscope.sock"),
		"OPENSCOPE_IDENTITY=" + s.path("vendor.key"), "OPENSCOPE_KNOWN_DAEMONS=" + s.path("known_daemons"),
		"OPENSCOPE_PASSPORT=" + s.handle, "OPENSCOPE_FINGERPRINT=" + s.words,
		"TZ=Pacific/Chatham", // no time in JSON is of where it was printed
	}
}

// must runs a program that has to succeed and returns its stdout.
func (s *site) must(program string, args ...string) string {
	s.t.Helper()
	stdout, stderr, code := run(s.t, s.env(), program, args...)
	if code != 0 {
		s.t.Fatalf("%s %s: exit %d\n%s%s", program, strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// refused runs a program that has to fail with the code, in one line that
// matches the pattern, and at most a hint.
func (s *site) refused(code int, pattern, program string, args ...string) {
	s.t.Helper()
	stdout, stderr, got := run(s.t, s.env(), program, args...)
	if got != code {
		s.t.Errorf("%s %s: exit %d, want %d\n%s%s", program, strings.Join(args, " "), got, code, stdout, stderr)
		return
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		s.t.Errorf("%s %s: the error is not one line and a hint:\n%s", program, strings.Join(args, " "), stderr)
	}
	if !regexp.MustCompile(pattern).MatchString(lines[0]) {
		s.t.Errorf("%s %s: the error %q does not match %q", program, strings.Join(args, " "), lines[0], pattern)
	}
}

// open opens a session for the vendor and makes its handle the environment's.
func (s *site) open(ttl string, specs ...string) {
	s.t.Helper()
	args := []string{"share", "open", "--agent", "you", "--to", "vendor-b", "--ttl", ttl}
	for _, spec := range specs {
		args = append(args, "--verb", spec)
	}
	out := s.must("openscope", args...)
	s.handle = regexp.MustCompile(`osh1s[0-9a-z]+`).FindString(out)
	s.id = regexp.MustCompile(`\bs-[0-9a-z]+`).FindString(out)
	hex := regexp.MustCompile(`\b[0-9a-f]{64}\b`).FindString(s.must("openscope", "fingerprint"))
	if s.handle == "" || s.id == "" || hex == "" {
		s.t.Fatalf("share open printed no handle, id or fingerprint:\n%s", out)
	}
	s.words = hex
}

// follow starts the endless call as the vendor and waits for its first line.
func (s *site) follow() *process {
	s.t.Helper()
	p := startProcess(s.t, s.env(), "openscope-reflect-client", "call", "test.follow")
	until(s.t, 10*time.Second, "the first line of the followed file", func() bool {
		return strings.Contains(p.out.String(), "canary-output-4711")
	})
	return p
}

func (s *site) following() bool {
	return exec.Command("pgrep", "-f", "tail -n 1 -f "+s.dir).Run() == nil
}

func TestKillingTheDaemonLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.follow")
	s.follow()
	if !s.following() {
		t.Fatal("the call does not run")
	}
	net := netHalf(s.daemon.cmd.Process.Pid)
	if err := s.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.daemon.done
	gone := until(t, 2*time.Second, "no process of the call is left", func() bool { return !s.following() })
	until(t, 2*time.Second, "its net half is gone", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/status", net))
		return net != 0 && errors.Is(err, fs.ErrNotExist)
	})
	t.Logf("the call's process was gone %v after kill -9", gone)
	s.startDaemon()
	if list := strings.TrimSpace(s.must("openscope", "share", "list", "--all", "--json")); list != "" && list != "[]" {
		t.Errorf("a session survived the daemon: %s", list)
	}
	t.Log(s.must("openscope", "audit", "verify"))
	s.refused(7, "", "openscope-reflect-client", "verbs")
}

func TestAnotherLocalUserOwnsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody here: ", err)
	}
	var uid, gid uint32
	if _, err := fmt.Sscan(nobody.Uid+" "+nobody.Gid, &uid, &gid); err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.follow")
	as := func(code int, args ...string) string {
		t.Helper()
		cmd := command(s.env(), "openscope", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("as nobody, openscope %s: exit %d, want %d\n%s", strings.Join(args, " "), got, code, out)
		}
		return string(out)
	}
	if list := as(0, "share", "list", "--all", "--json"); strings.Contains(list, s.id) {
		t.Errorf("nobody sees the session: %s", list)
	}
	as(4, "share", "extend", s.id, "--ttl", "10m")
	as(4, "share", "revoke", s.id)
	as(0, "share", "revoke", "--all")
	as(3, "verbs", "--agent", "you")
	as(3, "call", "--agent", "you", "test.echo", "text=hello")
	as(3, "share", "open", "--agent", "you", "--verb", "test.echo", "--to", "vendor-b")
	as(4, "audit", "show", s.id)
	as(4, "audit", "report", s.id)
	as(3, "recipient", "add", "mallory", strings.TrimSpace(s.must("openscope-reflect-client", "key")))
	as(3, "recipient", "remove", "vendor-b")
	as(3, "lockdown", "off")
	if log := as(0, "audit", "tail", "--json"); strings.Contains(log, s.id) {
		t.Errorf("nobody reads of the session in the log: %s", log)
	}
	if list := s.must("openscope", "share", "list", "--json"); !strings.Contains(list, s.id) {
		t.Errorf("the session is gone: %s", list)
	}
}

func TestBadInputIsOneLineAndTheRightExitCode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo")
	good := s.handle

	s.handle = good[:len(good)-9]
	s.refused(2, "handle", "openscope-reflect-client", "verbs")
	s.handle = good
	s.refused(2, "flag", "openscope", "share", "list", "--no-such-flag")
	s.refused(2, "", "openscope-reflect-client", "call", "test.echo", "no-equals-sign")

	grants := strings.ReplaceAll(testGrants, "USER", "root")
	s.write("grants-unknown.yaml", grants+"    colour: blue\n", 0o644)
	s.refused(6, `grants-unknown\.yaml:\d+:.*colour`, "openscope", "policy", "check", s.path("grants-unknown.yaml"))
	s.write("etc/grants.yaml", grants+"    colour: blue\n", 0o644)
	s.refused(6, `grants\.yaml:\d+:.*colour`, "openscope", "policy", "check")
	s.write("etc/grants.yaml", grants, 0o644)
	if err := os.Chmod(s.path("etc/grants.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	s.refused(6, `grants\.yaml.*writ`, "openscope", "policy", "check")
	if err := os.Chmod(s.path("etc/grants.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	verbs := strings.ReplaceAll(testVerbs, "DIR", s.dir)
	s.write("etc/verbs.yaml", strings.Replace(verbs, "text: {type: string, required: true}",
		"text: {type: string, required: true}\n      text: {type: string}", 1), 0o644)
	s.refused(6, `verbs\.yaml:\d+:.*text`, "openscope", "policy", "check")
	s.write("etc/verbs.yaml", verbs, 0o644)

	log, err := os.ReadFile(s.path("etc/state/audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("edited.log", strings.Replace(string(log), `"kind":"open"`, `"kind":"0pen"`, 1), 0o600)
	s.refused(6, `edited\.log.*\d`, "openscope", "audit", "verify", s.path("edited.log"))
	s.must("openscope", "audit", "verify")

	// Garbage on the relay's port, then everything still works.
	conn, err := net.Dial("udp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 2000 {
		if _, err := conn.Write(bytes.Repeat([]byte{byte(i), byte(i >> 3), 0xc3}, 1+i%400)); err != nil {
			t.Fatal(err)
		}
	}
	if out := s.must("openscope-reflect-client", "call", "test.echo", "text=still-here"); out != "still-here\n" {
		t.Errorf("after garbage on the relay's port: %q", out)
	}
}
