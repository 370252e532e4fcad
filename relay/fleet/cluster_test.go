package fleet_test

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// cluster is three real nats-servers on loopback, each a process.
type cluster struct {
	t       *testing.T
	client  [3]int // ports
	route   [3]int
	dirs    [3]string
	servers [3]*exec.Cmd
	logs    [3]bytes.Buffer
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	if _, err := exec.LookPath("nats-server"); err != nil {
		t.Skip("nats-server is not installed (.ci/install nats-server=nats-server)")
	}
	c := &cluster{t: t}
	for i := range c.servers {
		c.client[i], c.route[i], c.dirs[i] = freePort(t), freePort(t), t.TempDir()
	}
	for i := range c.servers {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.kill(i)
		}
	})
	return c
}

// freePort is one that nobody listens on; nats-server wants to be told.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *cluster) start(i int) {
	c.t.Helper()
	var routes []string
	for _, port := range c.route {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	c.servers[i] = exec.Command("nats-server", "-js", "-sd", c.dirs[i], "-n", fmt.Sprintf("n%d", i), "-a", "127.0.0.1",
		"-p", fmt.Sprint(c.client[i]), "--cluster_name", "test", "--cluster", fmt.Sprintf("nats://127.0.0.1:%d", c.route[i]), "--routes", strings.Join(routes, ","))
	c.servers[i].Stderr = &c.logs[i]
	if err := c.servers[i].Start(); err != nil {
		c.t.Fatal(err)
	}
}

// kill is kill -9.
func (c *cluster) kill(i int) {
	if c.servers[i] == nil {
		return
	}
	_ = c.servers[i].Process.Kill()
	_ = c.servers[i].Wait()
	c.servers[i] = nil
}

func (c *cluster) urls() string {
	var all []string
	for _, port := range c.client {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return strings.Join(all, ",")
}

// eventually asks again and again until the answer is yes, and says how long it took.
func eventually(t *testing.T, limit time.Duration, what string, yes func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		<-tick.C
		if time.Since(began) > limit {
			t.Fatalf("after %v, still not: %s", limit, what)
		}
	}
	return time.Since(began)
}
