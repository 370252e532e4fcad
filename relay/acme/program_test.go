package acme_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The program, as an operator runs it: not ready at first, then ready, and after
// a restart at once, with nobody to ask.
func TestTheProgramGetsItsCertificate(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "openscope-relay")
	if out, err := exec.Command("go", "build", "-o", binary, "openscope/relay/cmd/openscope-relay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	port, h := freePort(t), newHost(t)
	a := startAuthority(t, port)
	h.address = local(port)
	admin, stop := h.program(a, binary)
	waitReady(t, admin)
	first, err := h.shown(a.roots)
	if err != nil {
		t.Fatal(err)
	}
	h.private()
	stop()
	a.stop()
	admin, stop = h.program(a, binary)
	defer stop()
	waitReady(t, admin)
	if again, err := h.shown(a.roots); err != nil || !again.Equal(first) {
		t.Errorf("after a restart another certificate is shown: %v", err)
	}
	metrics, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	if err != nil || !strings.Contains(string(text), fmt.Sprintf("openscope_relay_certificate_expires_timestamp_seconds %v\n", float64(first.NotAfter.Unix()))) {
		t.Errorf("its end, %d, is not among the metrics: %v", first.NotAfter.Unix(), err)
	}
}

// program runs it, and returns where its operator looks.
func (h *host) program(a *authority, binary string) (admin string, stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "serve", "--acme", domain, "--acme-directory", a.directory, "--acme-ca", a.ca,
		"--state", h.dir, "--listen", h.address, "--admin", "127.0.0.1:0")
	out, err := cmd.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	stop = func() { cancel(); _ = cmd.Wait() }
	h.t.Cleanup(stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, after, ok := strings.Cut(lines.Text(), "127.0.0.1:"); ok && strings.Contains(lines.Text(), "admin listening") {
			port, _, _ := strings.Cut(after, `"`)
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return "127.0.0.1:" + strings.Fields(port)[0], stop
		}
	}
	h.t.Fatal("it does not say where its operator looks")
	return "", stop
}

func waitReady(t *testing.T, admin string) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		if resp, err := http.Get("http://" + admin + "/readyz"); err == nil {
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			last = string(text)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not get ready: ", last)
		}
	}
}
