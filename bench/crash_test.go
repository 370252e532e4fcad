package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openscope/wire/handle"
)

// uncapped starts a command with no limit on the size of a core file, in a folder
// of its own.
func uncapped(env []string, dir, program string, args ...string) *exec.Cmd {
	inner := command(env, program, args...)
	cmd := exec.Command("/bin/sh", append([]string{"-c", `ulimit -c unlimited; exec "$0" "$@"`, inner.Path}, args...)...)
	cmd.Env, cmd.Dir = append(inner.Env, "GOTRACEBACK=crash"), dir
	return cmd
}

// TestACrashLeavesNoSecretBehind is P5: the programs are ended by a signal that
// makes a core file, while they hold secrets, with everything set so that there
// would be one. There is none, and the report of the crash shows no secret. A
// program that is not ours does leave one here, or the test shows nothing.
func TestACrashLeavesNoSecretBehind(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command("/bin/sh", "-c", "ulimit -c unlimited; kill -ABRT $$")
	other.Dir = dir
	_ = other.Run()
	if status, ok := other.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.CoreDump() {
		t.Skip("no program leaves a core here: ", other.ProcessState)
	}
	s := newSite(t)
	s.open("5m", "test.follow")
	token, err := os.ReadFile(s.path("token"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(canaries)
	all.add("the deployment token", decodedText(t, string(token)), string(token))
	identity, err := os.ReadFile(s.path("etc/state/identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	all.add("the daemon's key", decodedText(t, string(identity)), string(identity))
	vendor, err := os.ReadFile(s.path("vendor.key"))
	if err != nil {
		t.Fatal(err)
	}
	all.add("the recipient's key", decodedText(t, string(vendor)), string(vendor))
	h, err := handle.Parse(s.handle)
	if err != nil {
		t.Fatal(err)
	}
	all.add("S", h.Secret.Reveal(), "")

	// The client is in the middle of a call, the relay and the second daemon serve.
	relay := s.path("relay-of-its-own")
	for _, c := range []struct {
		ready string
		cmd   *exec.Cmd
	}{
		{"canary-output-4711", uncapped(s.env(), dir, "openscope-reflect-client", "call", "test.follow")},
		{"sha256:", uncapped(s.env(), dir, "openscope-relay", "serve", "--listen", "127.0.0.1:0", "--self-signed", "--state", relay)},
		{"Daemon:", uncapped(s.env(), dir, "openscope", "dev")},
	} {
		name := filepath.Base(c.cmd.Args[3])
		var out lockedBuffer
		c.cmd.Stdout, c.cmd.Stderr = &out, &out
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, 20*time.Second, name+" is at work: "+out.String(), func() bool { return strings.Contains(out.String(), c.ready) || len(out.String()) > 200 })
		if err := c.cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait()
		status, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.CoreDump() {
			t.Errorf("%s ends as %v, with a core: %v", name, c.cmd.ProcessState, status.CoreDump())
		}
		if !strings.Contains(out.String(), "goroutine") {
			t.Errorf("%s says nothing of its crash: %.300s", name, out.String())
		}
		if found := all.search(out.String()); len(found) > 0 {
			t.Errorf("the report of %s shows %v", name, found)
		}
	}
}
