package acme_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what a real authority does at once.
const patience = 60 * time.Second

// authority is pebble, an ACME server for tests, with a DNS server that sends
// every name to this machine.
type authority struct {
	directory, ca string
	roots         *x509.CertPool // of what it issues
	stop          func()
}

// module is .ci/pebble.mod, from here.
const module = "../../.ci/pebble.mod"

// tool is the path of a program of the module, which go builds or has built.
func tool(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "tool", "-modfile="+module, "-n", name).CombinedOutput()
	if err != nil {
		t.Skipf("no %s: %v: %s", name, err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out))
}

// startAuthority runs one that asks at this port.
func startAuthority(t *testing.T, port int) *authority {
	t.Helper()
	where, err := exec.Command("go", "list", "-modfile="+module, "-m", "-f", "{{.Dir}}", "github.com/letsencrypt/pebble/v2").Output()
	if err != nil {
		t.Skip("no pebble: ", err)
	}
	certs := filepath.Join(strings.TrimSpace(string(where)), "test", "certs")
	dns, api, management := freePort(t), freePort(t), freePort(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": local(api), "managementListenAddress": local(management),
		"certificate": filepath.Join(certs, "localhost", "cert.pem"), "privateKey": filepath.Join(certs, "localhost", "key.pem"),
		"httpPort": 1, "tlsPort": port, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "90 days", "validityPeriod": 90 * 24 * 3600}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	stopDNS := start(t, tool(t, "pebble-challtestsrv"), "-dnsserver", local(dns), "-defaultIPv6", "", "-management", local(freePort(t)),
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	stop := start(t, tool(t, "pebble"), "-config", file, "-dnsserver", local(dns))
	a := &authority{
		directory: fmt.Sprintf("https://localhost:%d/dir", api), ca: filepath.Join(certs, "pebble.minica.pem"),
		roots: x509.NewCertPool(), stop: func() { stop(); stopDNS() },
	}
	if !a.roots.AppendCertsFromPEM(a.get(t, fmt.Sprintf("https://localhost:%d/roots/0", management))) {
		t.Fatal("pebble shows no root")
	}
	a.get(t, a.directory)
	return a
}

// start runs a server until the returned stop, or the test's end.
func start(t *testing.T, program string, args ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { cancel(); _ = cmd.Wait() }
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return stop
}

// trusted is who vouches for pebble's own HTTPS.
func (a *authority) trusted(t *testing.T) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(a.ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// get asks until it is answered: pebble takes its time to start.
func (a *authority) get(t *testing.T, url string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.trusted(t)}, DisableKeepAlives: true}}
	deadline, tick := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if resp, err := client.Get(url); err == nil {
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				return body
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is not answered", url)
		}
	}
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
