package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"openscope/relay"
)

// stage is everything the demo has set up.
type stage struct {
	bin, dir string
	user     string
	ssh      string // the server's address; empty without one
	hostKey  string
	relay    string
	pin      string
	tap      tap

	words, handle, id string // what share open printed

	stop     []func()
	children sync.WaitGroup
}

func newStage(bin string) (*stage, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "openscope-demo-")
	if err != nil {
		return nil, err
	}
	return &stage{bin: bin, dir: dir, user: me.Username}, nil
}

// takeDown stops what was started, last first, and removes every file.
func (s *stage) takeDown() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	if pid := s.servicePID(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
	}
	s.children.Wait()
	_ = os.RemoveAll(s.dir)
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) say(format string, args ...any) { fmt.Printf("\n# "+format+"\n", args...) }

// startSSH starts a real OpenSSH server on loopback, for this user alone, with
// keys made for this demo.
func (s *stage) startSSH(ctx context.Context) error {
	server, err := findSSHD()
	if err != nil {
		s.say("No OpenSSH server here (%v): the verbs run on this machine by exec instead", err)
		return nil
	}
	for _, key := range []string{"host_key", "issuer_key"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path(key)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	public, err := os.ReadFile(s.path("issuer_key.pub"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("authorized_keys"), public, 0o600); err != nil {
		return err
	}
	host, err := os.ReadFile(s.path("host_key.pub"))
	if err != nil {
		return err
	}
	s.hostKey = strings.Join(strings.Fields(string(host))[:2], " ")
	if s.ssh, err = freePort("tcp"); err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(s.ssh)
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
		port, s.path("host_key"), s.path("authorized_keys"))
	if err := os.WriteFile(s.path("sshd_config"), []byte(config), 0o600); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return err
		}
	}
	s.say("A real OpenSSH server at %s, standing for the machine that web runs on", s.ssh)
	if err := s.start(exec.Command(server, "-D", "-e", "-f", s.path("sshd_config")), "sshd.log"); err != nil {
		return err
	}
	return s.eventually(ctx, "the OpenSSH server answers", func() bool {
		conn, err := net.DialTimeout("tcp", s.ssh, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// findSSHD finds the server, installing Debian's if it is missing and may be.
func findSSHD() (string, error) {
	if path, err := exec.LookPath("/usr/sbin/sshd"); err == nil {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return "", errors.New("it is not installed and this user may not install it")
	}
	fmt.Println("# Installing openssh-server")
	for _, args := range [][]string{{"update", "-q"}, {"install", "-y", "-q", "--no-install-recommends", "openssh-server"}} {
		cmd := exec.Command(apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLine(out))
		}
	}
	return exec.LookPath("/usr/sbin/sshd")
}

// startRelay runs the relay in this process, so that what it sees can be shown:
// the tap is told sizes and times, because that is all there is to tell.
func (s *stage) startRelay(ctx context.Context) error {
	if err := os.Mkdir(s.path("relay"), 0o700); err != nil {
		return err
	}
	certificate, pin, err := relay.SelfSigned(s.path("relay"), rand.Reader, time.Now())
	if err != nil {
		return err
	}
	tokens, err := relay.OpenTokenFile(s.path("relay/tokens"))
	if err != nil {
		return err
	}
	token, err := tokens.Add("demo", rand.Reader)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("token"), []byte(token.Text()+"\n"), 0o600); err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r, err := relay.New(relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:        conn, Tokens: tokens, Tap: &s.tap,
	})
	if err != nil {
		return err
	}
	s.relay, s.pin = conn.LocalAddr().String(), pin.String()
	s.say("A relay at %s (udp), which has the public half of one token and nothing else", s.relay)
	ctx, cancel := context.WithCancel(ctx)
	s.stop = append(s.stop, cancel)
	s.children.Go(func() {
		if err := r.Run(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "the relay:", err)
		}
	})
	return nil
}

// configure does what the issuer's administrator does, once.
func (s *stage) configure(ctx context.Context) error {
	s.say("The daemon's side: configuration, one vendor, one grant")
	if err := s.expect(ctx, 0, `openscope\.yaml`, "openscope", "init", "--dir", s.path("etc"),
		"--relay", s.relay, "--relay-pin", s.pin, "--token", "@"+s.path("token")); err != nil {
		return err
	}
	target, executor := "", "exec"
	if s.ssh != "" {
		_, port, _ := net.SplitHostPort(s.ssh)
		target = fmt.Sprintf("ssh:\n  web-1: {host: 127.0.0.1, port: %s, user: %q, key_file: %s, host_key: %s}\n", port, "{issuer}", s.path("issuer_key"), s.hostKey)
		executor = "ssh, target: web-1"
	}
	files := strings.NewReplacer("TARGET", target, "EXECUTOR", executor, "DIR", s.dir, "USER", s.user)
	if err := os.WriteFile(s.path("etc/verbs.yaml"), []byte(files.Replace(verbsFile)), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("etc/grants.yaml"), []byte(files.Replace(grantsFile)), 0o644); err != nil {
		return err
	}
	return s.expect(ctx, 0, "", "openscope", "policy", "check")
}

const verbsFile = `TARGETverbs:
  ssh.tail_logs:
    { summary: Follow a service's log, class: read, executor: EXECUTOR, timeout: 10m, max_output: 4MiB,
      argv: [tail, -n, "{lines}", "{follow}", "DIR/{service}.log"],
      params: {
        service: {type: string, enum: [web, db], required: true},
        lines: {type: integer, min: 1, max: 2000, default: 3},
        follow: {type: flag, argv: [-f], default: false} } }
  ssh.restart_service:
    { summary: Restart a service, class: change, executor: EXECUTOR, timeout: 1m,
      argv: [DIR/servicectl, restart, "{service}"],
      params: { service: {type: string, enum: [web, db], required: true} } }
  ssh.disk_usage:
    { summary: How full the disks are, class: read, executor: EXECUTOR, argv: [df, -h] }
`

const grantsFile = `agents:
  you:
    users: [USER]
    allow:
      - verb: ssh.tail_logs
      - verb: ssh.restart_service
      - verb: ssh.disk_usage
    delegate:
      to: [vendor-b]
      verbs: [ssh.tail_logs, ssh.restart_service]
      max_ttl: 30m
`

func (s *stage) startDaemon(ctx context.Context) error {
	if err := s.start(s.command("openscope", "daemon"), "daemon.log"); err != nil {
		return err
	}
	if err := s.eventually(ctx, "the daemon has reached the relay", func() bool {
		out, err := s.command("openscope", "status", "--json").Output()
		return err == nil && bytes.Contains(out, []byte(`"connected":true`))
	}); err != nil {
		return err
	}
	s.say("The vendor makes a key, once, and sends its public half; root registers it")
	if err := s.expect(ctx, 0, "osk1", "openscope-reflect-client", "keygen"); err != nil {
		return err
	}
	key, err := s.command("openscope-reflect-client", "key").Output()
	if err != nil {
		return err
	}
	return s.expect(ctx, 0, "", "openscope", "recipient", "add", "vendor-b", strings.TrimSpace(string(key)))
}

// command is one of the programs with the demo's environment: the same command
// lines as anywhere, on files of the demo's own.
func (s *stage) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "USER=" + s.user,
		"OPENSCOPE_CONFIG=" + s.path("etc/openscope.yaml"), "OPENSCOPE_SOCKET=" + s.path("etc/openscope.sock"),
		"OPENSCOPE_IDENTITY=" + s.path("vendor.key"), "OPENSCOPE_KNOWN_DAEMONS=" + s.path("known_daemons"),
		"OPENSCOPE_PASSPORT=" + s.handle,
	}
	return cmd
}

// expect shows a command and its output, and demands its exit code and a
// pattern in what it printed.
func (s *stage) expect(ctx context.Context, code int, pattern, program string, args ...string) error {
	_, err := s.show(ctx, code, pattern, program, args...)
	return err
}

func (s *stage) show(ctx context.Context, code int, pattern, program string, args ...string) (string, error) {
	fmt.Printf("\n$ %s %s\n", program, s.shorten(strings.Join(args, " ")))
	cmd := s.command(program, args...)
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, os.Stdout)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	stop()
	got := cmd.ProcessState.ExitCode()
	if err != nil && got < 0 {
		return out.String(), fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	if got != code {
		return out.String(), fmt.Errorf("%s %s: exit code %d, expected %d", program, strings.Join(args, " "), got, code)
	}
	if code != 0 {
		fmt.Printf("(exit code %d)\n", got)
	}
	if !regexp.MustCompile(pattern).MatchString(out.String()) {
		return out.String(), fmt.Errorf("%s %s: printed nothing that matches %q", program, strings.Join(args, " "), pattern)
	}
	return out.String(), nil
}

// shorten keeps what is shown on one line: long words that a person would
// paste, not type.
func (s *stage) shorten(line string) string {
	line = strings.ReplaceAll(line, s.dir, "$DEMO")
	return regexp.MustCompile(`\b(os[ks]1\w{12})\w{40,}`).ReplaceAllString(line, "$1…")
}

// start runs a program beside the demo until it is taken down.
func (s *stage) start(cmd *exec.Cmd, log string) error {
	file, err := os.Create(s.path(log))
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return err
	}
	s.children.Go(func() { _ = cmd.Wait() })
	s.stop = append(s.stop, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	return nil
}

// eventually polls for what cannot be waited for.
func (s *stage) eventually(ctx context.Context, what string, met func() bool) error {
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("not within 15 s: %s", what)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func freePort(network string) (string, error) {
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
