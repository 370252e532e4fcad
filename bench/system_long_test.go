//go:build long

package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// releasePackages makes the packages of a version, and returns their folder.
func releasePackages(t *testing.T, version string) string {
	t.Helper()
	dist := t.TempDir()
	cmd := exec.Command("go", "run", "./bench/release", "-version", version, "-epoch", "1790000000", "-only", "linux/"+runtime.GOARCH, "-o", dist)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("making packages: %v\n%s", err, out)
	}
	return dist
}

// put writes a file into a machine.
func (m *machine) put(path string, data []byte, mode string) {
	m.t.Helper()
	cmd := m.command("sh", "-c", `mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"`, "sh", path, mode)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: writing %s: %v\n%s", m.name, path, err, out)
	}
}

// give puts a package from dist into root's home.
func (m *machine) give(dist, name string) {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("packages of %s: %v, %v", name, found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		m.t.Fatal(err)
	}
	m.put("/root/"+filepath.Base(found[0]), data, "644")
}

// walk is a reader of the documents, at three machines: what has been printed
// is put where the documents say … for it.
type walk struct {
	t        *testing.T
	machines map[string]*machine
	known    map[string]string // what a placeholder stands for
	token    string
	words    string
}

var learnt = map[string]*regexp.Regexp{
	"sha256:…": regexp.MustCompile(`sha256:[0-9a-f]{64}`),
	"osk1…":    regexp.MustCompile(`osk1[0-9a-z]+`),
	"osh1s…":   regexp.MustCompile(`osh1s[0-9a-z]+`),
	"s-…":      regexp.MustCompile(`\bs-[0-9a-z]+`),
}

// follow does what one block of a document says.
func (w *walk) follow(b block) {
	w.t.Helper()
	m, ok := w.machines[b.machine]
	if !ok {
		w.t.Fatalf("%s: there is no machine %q", b.where, b.machine)
	}
	if b.file != "" {
		m.put(b.file, []byte(strings.Join(b.lines, "\n")+"\n"), "644")
		return
	}
	for _, line := range b.lines {
		for placeholder, value := range w.known {
			line = strings.ReplaceAll(line, placeholder, value)
		}
		if strings.Contains(line, "…") {
			w.t.Fatalf("%s: nothing that was printed belongs into %q", b.where, line)
		}
		if b.terminal {
			w.atTerminal(m, line)
			continue
		}
		w.run(m, b, line)
	}
}

func (w *walk) run(m *machine, b block, line string) {
	w.t.Helper()
	argv := []string{"sh", "-c", "cd && " + line}
	if b.user != "" {
		argv = []string{"runuser", "-l", b.user, "-c", line}
	}
	stdin := ""
	if strings.HasSuffix(line, "--token -") || strings.HasPrefix(line, "cat >") {
		stdin = w.token + "\n"
	}
	var out string
	// What a service has just been told may take it a moment: a person would
	// look again.
	status := strings.HasPrefix(line, "openscope status")
	again := status || strings.HasPrefix(line, "journalctl")
	for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		var code int
		if out, code = m.try(stdin, argv...); code == 0 && !(status && strings.Contains(out, "not connected")) {
			break
		}
		if !again || time.Since(began) > 30*time.Second {
			w.t.Fatalf("%s: %s, on %s: exit %d\n%s", b.where, line, m.name, code, out)
		}
	}
	w.t.Logf("%s$ %s\n%s", m.name, line, out)
	for placeholder, pattern := range learnt {
		if found := pattern.FindString(out); found != "" {
			w.known[placeholder] = found
		}
	}
	if found := tokenText.FindString(out); found != "" {
		w.token = found
	}
	if strings.HasPrefix(line, "openscope share open") {
		w.words = strings.TrimSpace(eightWords.FindString(out))
	}
}

// eightWords are on a line of their own.
var eightWords = regexp.MustCompile(`(?m)^ +([a-z]+ ){7}[a-z]+$`)

// atTerminal is the recipient, who types what the issuer has read out.
func (w *walk) atTerminal(m *machine, line string) {
	w.t.Helper()
	cmd := m.command("sh", "-c", "cd && exec "+line)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	x := onTerminal(w.t, cmd, 200, 50)
	x.sees(`as the issuer told you \(8 words\): `)
	x.types(w.words + "\n")
	x.sees(`remember this daemon by: `)
	x.types("acme\n")
	x.sees(`acme \d+m> `)
	x.types("host.disk\r")
	x.sees(`Filesystem`)
	x.sees(`acme \d+m> `)
	x.types("\x04")
	<-x.done
}

// newWalk boots the three machines of the documents, with the packages of a
// version in root's home.
func newWalk(t *testing.T, dist string) *walk {
	t.Helper()
	root := tree(t)
	w := &walk{t: t, known: make(map[string]string), machines: make(map[string]*machine)}
	for name, pkg := range map[string]string{"relay": "openscope-relay", "inside": "openscope", "outside": "openscope-reflect-client"} {
		m := boot(t, root, name)
		m.give(dist, pkg)
		w.machines[name] = m
	}
	relay, inside, outside := w.machines["relay"], w.machines["inside"], w.machines["outside"]
	connect(t, relay, inside, outside)
	inside.put("/etc/hosts", []byte("127.0.0.1 localhost\n"+relayToInside+" relay.example.com\n"), "644")
	outside.put("/etc/hosts", []byte("127.0.0.1 localhost\n"+relayToOutside+" relay.example.com\n"), "644")
	inside.must("useradd", "--create-home", "alice")
	outside.must("sh", "-c", "dpkg -i /root/openscope-reflect-client_*.deb")
	return w
}

// The page of README.md is followed to the letter, on three systems that have
// been booted, with the packages as they are released; then the pages for
// operators, then an upgrade, and the way back.
func TestTenMinutesOnThreeMachines(t *testing.T) {
	needsMachines(t)
	w := newWalk(t, releasePackages(t, "v0.1.0"))
	began := time.Now()
	for _, b := range blocks(t, "../README.md") {
		if b.machine != "" {
			w.follow(b)
		}
	}
	t.Logf("README.md took %v, without reading", time.Since(began))
	w.machines["inside"].onlyTheWayOut()
	t.Run("hardening", func(t *testing.T) { w.hardened(t) })
	// The daemon's page last: it changes the identity.
	for _, page := range []string{"../relay/README.md", "../daemon/README.md"} {
		for _, b := range blocks(t, page) {
			if b.machine != "" {
				w.follow(b)
			}
		}
	}
	w.upgrade(releasePackages(t, "v0.2.0"))
	w.remove()
}

// hardened looks at the running services from outside: the units hold, and let
// through what the work needs.
func (w *walk) hardened(t *testing.T) {
	inside, relay := w.machines["inside"], w.machines["relay"]
	for _, c := range []struct {
		m       *machine
		service string
		uid     string
		caps    string
	}{
		{inside, "openscope", "0", "00000000002000e5"},
		{relay, "openscope-relay", "", "0000000000000400"},
	} {
		pid := strings.TrimSpace(c.m.must("systemctl", "show", "-P", "MainPID", c.service))
		status := c.m.must("cat", "/proc/"+pid+"/status")
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t" + c.caps} {
			if !strings.Contains(status, want) {
				t.Errorf("%s: no %s in its status\n%s", c.service, want, status)
			}
		}
		if root := strings.Contains(status, "Uid:\t0\t"); root != (c.uid == "0") {
			t.Errorf("%s: root is %v\n%s", c.service, root, status)
		}
	}
	if out := inside.must("runuser", "-l", "alice", "-c", "openscope call --agent you host.uptime"); !strings.Contains(out, "load average") {
		t.Errorf("a verb under the unit's hardening: %s", out)
	}
}

// kept is what an upgrade must not touch.
func kept(m *machine) string {
	return m.must("sh", "-c", "cd / && sha256sum etc/openscope/*.yaml etc/openscope/token var/lib/openscope/identity.key && openscope fingerprint")
}

// upgrade installs the next version over a service that runs and a file that
// the operator has changed.
func (w *walk) upgrade(dist string) {
	w.t.Helper()
	relay, inside := w.machines["relay"], w.machines["inside"]
	relay.must("sh", "-c", "echo 'max-connections 4000' >>/etc/openscope-relay/relay.conf && systemctl restart openscope-relay")
	conf, pin := relay.must("cat", "/etc/openscope-relay/relay.conf"), relay.must("sh", "-c", "cat /var/lib/openscope-relay/certificate.pem /var/lib/openscope-relay/tokens")
	before, log := kept(inside), inside.must("cat", "/var/lib/openscope/audit.log")

	for m, pkg := range map[*machine]string{relay: "openscope-relay", inside: "openscope"} {
		m.must("sh", "-c", "rm /root/"+pkg+"_*.deb")
		m.give(dist, pkg)
		old := m.must("systemctl", "show", "-P", "MainPID", pkg)
		w.t.Log(m.must("sh", "-c", "dpkg -i --force-confdef /root/"+pkg+"_*.deb"))
		if out := m.must(pkg, "version"); !strings.Contains(out, "v0.2.0") {
			w.t.Errorf("after the upgrade, %s is %s", pkg, out)
		}
		if m.must("systemctl", "is-active", pkg); m.must("systemctl", "show", "-P", "MainPID", pkg) == old {
			w.t.Errorf("%s runs on as it was before the upgrade", pkg)
		}
	}
	if now := relay.must("cat", "/etc/openscope-relay/relay.conf"); now != conf {
		w.t.Errorf("the upgrade has changed relay.conf:\n%s", now)
	}
	if now := relay.must("sh", "-c", "cat /var/lib/openscope-relay/certificate.pem /var/lib/openscope-relay/tokens"); now != pin {
		w.t.Error("the upgrade has changed the relay's certificate or its tokens")
	}
	if now := kept(inside); now != before {
		w.t.Errorf("the upgrade has changed\n%s\nto\n%s", before, now)
	}
	if now := inside.must("cat", "/var/lib/openscope/audit.log"); !strings.HasPrefix(now, log) || len(now) == len(log) {
		w.t.Error("the log does not go on where it was")
	}
	inside.must("openscope", "audit", "verify")
	// And it works: the page for recipients once more, under a name of its own.
	w.run(inside, block{where: "after the upgrade"}, "openscope status")
	w.run(inside, block{where: "after the upgrade", user: "alice"}, "openscope share open --agent you --verb host.uptime --to vendor-b --ttl 10m")
	out := w.machines["outside"].must("openscope-reflect-client", "--passport", w.known["osh1s…"], "--fingerprint", w.words, "--daemon", "after", "call", "host.uptime")
	if !strings.Contains(out, "load average") {
		w.t.Errorf("a call after the upgrade: %s", out)
	}
}

// remove takes the packages off again. What operators and auditors hold on to
// goes last, or not at all.
func (w *walk) remove() {
	w.t.Helper()
	relay, inside := w.machines["relay"], w.machines["inside"]
	for m, pkg := range map[*machine]string{relay: "openscope-relay", inside: "openscope"} {
		m.must("dpkg", "--remove", pkg)
		if out, code := m.try("", "systemctl", "is-active", pkg); code == 0 {
			w.t.Errorf("%s is removed, and runs: %s", pkg, out)
		}
		if out, code := m.try("", "sh", "-c", "ls /usr/bin/"+pkg+" /usr/lib/systemd/system/"+pkg+".service /usr/lib/sysctl.d/60-"+pkg+".conf"); code == 0 || strings.Contains(out, "\n/usr") {
			w.t.Errorf("%s left behind: %s", pkg, out)
		}
		m.must("ls", "/etc/"+pkg, "/var/lib/"+pkg)
	}
	log := inside.must("cat", "/var/lib/openscope/audit.log")
	if !strings.Contains(log, `"kind":"stop"`) {
		w.t.Error("the log does not say that the daemon was stopped")
	}
	inside.must("dpkg", "--purge", "openscope")
	relay.must("dpkg", "--purge", "openscope-relay")
	if inside.must("cat", "/var/lib/openscope/audit.log") != log {
		w.t.Error("purging has touched the log")
	}
	for m, gone := range map[*machine]string{inside: "/etc/openscope", relay: "/var/lib/openscope-relay"} {
		if out, code := m.try("", "ls", gone); code == 0 {
			w.t.Errorf("purging left %s: %s", gone, out)
		}
	}
}
