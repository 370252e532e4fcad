package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sshServer is a real OpenSSH server on loopback, for the user the tests run
// under.
type sshServer struct {
	dir    string
	target SSHTarget
}

func newSSHServer(t *testing.T) *sshServer {
	t.Helper()
	sshd := "/usr/sbin/sshd"
	if _, err := os.Stat(sshd); err != nil {
		t.Skip("there is no OpenSSH server here: ", err)
	}
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("there is no ssh-keygen here: ", err)
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip("the server's folder cannot be made: ", err)
		}
	}
	dir, err := os.MkdirTemp("", "executor-sshd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &sshServer{dir: dir}
	for _, key := range []string{"host", "other_host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path(key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	s.copy(t, "user.pub", "authorized_keys")
	port := freePort(t)
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n",
		port, s.path("host"), s.path("authorized_keys"))
	if err := os.WriteFile(s.path("config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(sshd, "-D", "-e", "-f", s.path("config"))
	var log collected
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	s.target = SSHTarget{Host: "127.0.0.1", Port: port, User: "{issuer}", KeyFile: s.path("user"), HostKey: s.read(t, "host.pub")}
	until(t, 10*time.Second, "the server answers", func() bool {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

func (s *sshServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sshServer) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (s *sshServer) copy(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(s.path(to), []byte(s.read(t, from)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// executor is an SSH executor with the server as its one target, changed.
func (s *sshServer) executor(t *testing.T, change func(*SSHTarget)) *SSH {
	t.Helper()
	target := s.target
	if change != nil {
		change(&target)
	}
	x, err := NewSSH(SSHConfig{Targets: map[string]SSHTarget{"web-1": target}})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func sshJob(t *testing.T, argv ...string) Job {
	return Job{Argv: argv, As: me(t), Issuer: me(t).Name, Target: "web-1"}
}

func TestOverSSH(t *testing.T) {
	s := newSSHServer(t)
	x := s.executor(t, nil)

	t.Run("output and status arrive, each on its own", func(t *testing.T) {
		job := sshJob(t, "sh", "-c", "head -c 1000000 /dev/zero; echo oops >&2; exit 7")
		var out, errs collected
		job.Stdout, job.Stderr = &out, &errs
		o := x.Execute(t.Context(), job)
		if o.Err != nil || o.Status != 7 || len(out.String()) != 1_000_000 || errs.String() != "oops\n" {
			t.Errorf("%+v, %d bytes, %q", o, len(out.String()), errs.String())
		}
	})
	t.Run("the argv arrives as it is", func(t *testing.T) {
		argv := []string{"/usr/bin/printf", `%s\0`, "", " ", "a b", "'", `"`, `\`, "$(id)", "`id`", ";|&<>*?[]{}~!#", "-n", "a\nb", "\xff", "é", strings.Repeat("x", 4096)}
		r := rand.New(rand.NewPCG(5, 6))
		for range 1000 {
			word := make([]byte, r.IntN(20))
			for i := range word {
				word[i] = byte(1 + r.IntN(255))
			}
			argv = append(argv, string(word))
		}
		job := sshJob(t, argv...)
		var out collected
		job.Stdout = &out
		o := x.Execute(t.Context(), job)
		if want := strings.Join(argv[2:], "\x00") + "\x00"; o.Err != nil || out.String() != want {
			t.Errorf("%+v: %q", o, out.String())
		}
	})
	t.Run("what is not there is status 127", func(t *testing.T) {
		if o := x.Execute(t.Context(), sshJob(t, "no-such-command-at-all")); o.Err != nil || o.Status != 127 {
			t.Errorf("%+v", o)
		}
	})
	t.Run("standard input is empty", func(t *testing.T) {
		job := sshJob(t, "wc", "-c")
		var out collected
		job.Stdout = &out
		if o := x.Execute(t.Context(), job); o.Err != nil || strings.TrimSpace(out.String()) != "0" {
			t.Errorf("%+v: %q", o, out.String())
		}
	})
	t.Run("a cancelled call dies over there", func(t *testing.T) {
		for name, text := range map[string]string{
			"a plain child": "sleep 97531.WORD & echo ready; wait",
			"the command":   "echo ready; exec sleep 97531.WORD",
			"TERM ignored":  "trap '' TERM HUP; echo ready; sleep 97531.WORD; sleep 97531.WORD",
			"output closed": "echo ready; exec >/dev/null 2>&1; sleep 97531.WORD",
		} {
			word := unique()
			job := sshJob(t, script(text, word)...)
			var out collected
			job.Stdout = &out
			revoked := errors.New("revoked")
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan Outcome, 1)
			go func() { done <- x.Execute(ctx, job) }()
			until(t, 10*time.Second, "the script is ready", func() bool { return out.String() == "ready\n" && asleep(word) == 1 })
			cancel(revoked)
			if o := <-done; !errors.Is(o.Err, revoked) {
				t.Errorf("%s: %+v", name, o)
			}
			took := until(t, 2*time.Second, name+" is gone", func() bool { return alive("97531."+word) == 0 })
			t.Logf("%s: gone %v after the cancel", name, took)
		}
	})
	t.Run("the verb's time is up over there too", func(t *testing.T) {
		word := unique()
		job := sshJob(t, script("sleep 97531.WORD & echo ready; wait", word)...)
		job.Timeout = 5 * time.Second // connecting is part of it
		var out collected
		job.Stdout = &out
		if o := x.Execute(t.Context(), job); !o.TimedOut || o.Err != nil || out.String() != "ready\n" {
			t.Errorf("%+v, %q", o, out.String())
		}
		until(t, 2*time.Second, "it is gone", func() bool { return alive("97531."+word) == 0 })
	})
	t.Run("a writer that fails kills", func(t *testing.T) {
		word := unique()
		full := errors.New("the limit is reached")
		job := sshJob(t, script("echo x; sleep 97531.WORD", word)...)
		job.Stdout = writerFunc(func([]byte) (int, error) { return 0, full })
		if o := x.Execute(t.Context(), job); !errors.Is(o.Err, full) {
			t.Errorf("%+v", o)
		}
		until(t, 2*time.Second, "it is gone", func() bool { return alive("97531."+word) == 0 })
	})
	t.Run("a signal is 128 and its number", func(t *testing.T) {
		for signal, want := range map[string]int{"KILL": 137, "TERM": 143} {
			if o := x.Execute(t.Context(), sshJob(t, "sh", "-c", "kill -"+signal+" $$")); o.Err != nil || o.Status != want {
				t.Errorf("%s: %+v", signal, o)
			}
		}
	})
	t.Run("a lost connection is no status, and ends the work", func(t *testing.T) { s.losesTheConnection(t) })
	t.Run("many at once", func(t *testing.T) {
		results := make(chan Outcome, 8)
		for range 8 {
			go func() { results <- x.Execute(t.Context(), sshJob(t, "true")) }()
		}
		for range 8 {
			if o := <-results; o.Err != nil || o.Status != 0 {
				t.Errorf("%+v", o)
			}
		}
	})
	t.Run("another host key is refused", func(t *testing.T) {
		x := s.executor(t, func(target *SSHTarget) { target.HostKey = s.read(t, "other_host.pub") })
		file := s.path("touched")
		if o := x.Execute(t.Context(), sshJob(t, "touch", file)); o.Err == nil || !strings.Contains(o.Err.Error(), "host key mismatch") || o.Status != NoStatus {
			t.Errorf("%+v", o)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Error("the command ran")
		}
	})
	t.Run("key files that are not for one alone are refused", func(t *testing.T) { s.refusesKeyFiles(t) })
}

func (s *sshServer) losesTheConnection(t *testing.T) {
	dialed := make(chan net.Conn, 1)
	x, err := NewSSH(SSHConfig{
		Targets: map[string]SSHTarget{"web-1": s.target},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			dialed <- conn
			return conn, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	word := unique()
	job := sshJob(t, script("echo ready; sleep 97531.WORD", word)...)
	var out collected
	job.Stdout = &out
	done := make(chan Outcome, 1)
	go func() { done <- x.Execute(t.Context(), job) }()
	until(t, 10*time.Second, "the script is ready", func() bool { return out.String() == "ready\n" && asleep(word) == 1 })
	_ = (<-dialed).Close()
	if o := <-done; !errors.Is(o.Err, errConnectionLost) || o.Status != NoStatus || o.TimedOut {
		t.Errorf("%+v", o)
	}
	until(t, 2*time.Second, "it is gone", func() bool { return alive("97531."+word) == 0 })
}

func (s *sshServer) refusesKeyFiles(t *testing.T) {
	s.copy(t, "user", "readable")
	s.copy(t, "user", "twice")
	if err := errors.Join(
		os.Chmod(s.path("readable"), 0o644),
		os.Symlink(s.path("user"), s.path("link")),
		os.Link(s.path("twice"), s.path("twice_too")),
		os.WriteFile(s.path("garbage"), []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret-canary\n"), 0o600),
		exec.Command("mkfifo", "-m", "0600", s.path("pipe")).Run(),
		exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", s.path("locked")).Run(),
	); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"readable": "0600", "link": "too many levels", "twice": "hard link", "garbage": "not a private key", "pipe": "regular",
		"locked": "passphrase", "missing": "no such file",
	} {
		x := s.executor(t, func(target *SSHTarget) { target.KeyFile = s.path(name) })
		o := x.Execute(t.Context(), sshJob(t, "true"))
		if o.Err == nil || !strings.Contains(o.Err.Error(), want) || strings.Contains(o.Err.Error(), "canary") {
			t.Errorf("%s: %+v, want %q", name, o, want)
		}
	}
}

func TestAnIssuerWhoIsNoAccountIsRefused(t *testing.T) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcSGXhdJEzYWxQ1vNg6hDkAAhPdQRWmDHqHUpbz4pVe"
	x, err := NewSSH(SSHConfig{
		Targets: map[string]SSHTarget{"web-1": {Host: "127.0.0.1", Port: 1, User: "{issuer}", KeyFile: "/keys/{issuer}", HostKey: key}},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("it was dialed")
			return nil, errors.New("unexpected")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, issuer := range []string{"", "../root", "a/b", "-o", ".", "a b", "a\nb", "{issuer}", strings.Repeat("x", 65)} {
		job := sshJob(t, "true")
		job.Issuer = issuer
		if o := x.Execute(t.Context(), job); !errors.Is(o.Err, ErrJob) {
			t.Errorf("%q: %+v", issuer, o)
		}
	}
	if got := x.Describe(Job{Argv: []string{"/bin/x", "a b"}, Issuer: "alice", Target: "web-1"}); got != "over ssh as alice on 127.0.0.1:1: /bin/x 'a b'" {
		t.Error(got)
	}
}

func TestTargetsAreCheckedWhenTheyAreRead(t *testing.T) {
	good := SSHTarget{Host: "h", User: "u", KeyFile: "/k", HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcSGXhdJEzYWxQ1vNg6hDkAAhPdQRWmDHqHUpbz4pVe"}
	for name, change := range map[string]func(*SSHTarget){
		"no host":              func(x *SSHTarget) { x.Host = "" },
		"a host with a space":  func(x *SSHTarget) { x.Host = "a b" },
		"a port that is none":  func(x *SSHTarget) { x.Port = 70000 },
		"no user":              func(x *SSHTarget) { x.User = "" },
		"a relative key file":  func(x *SSHTarget) { x.KeyFile = "k" },
		"no host key":          func(x *SSHTarget) { x.HostKey = "" },
		"two host keys":        func(x *SSHTarget) { x.HostKey += "\n" + x.HostKey },
		"a key with an option": func(x *SSHTarget) { x.HostKey = "no-pty " + x.HostKey },
		"nonsense":             func(x *SSHTarget) { x.HostKey = "ssh-ed25519 AAAA" },
	} {
		target := good
		change(&target)
		if _, err := NewSSH(SSHConfig{Targets: map[string]SSHTarget{"t": target}}); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if _, err := NewSSH(SSHConfig{Targets: map[string]SSHTarget{"t": good}}); err != nil {
		t.Error(err)
	}
}

func TestAServerThatSaysNothingIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &sshServer{dir: t.TempDir()}
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("there is no ssh-keygen here: ", err)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path("user")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, bytes.TrimSpace(out))
	}
	s.target = SSHTarget{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, User: "u", KeyFile: s.path("user"), HostKey: s.read(t, "user.pub")}
	x := s.executor(t, nil)
	for _, greeting := range []string{"", "SSH-2.0-OpenSSH_9.9\r\n"} {
		s.stallsAfter(t, l, x, greeting)
	}
	job := sshJob(t, "true")
	job.Timeout = 100 * time.Millisecond
	if o := x.Execute(t.Context(), job); !o.TimedOut || o.Err != nil || o.Status != NoStatus {
		t.Errorf("the job's own timeout: %+v", o)
	}
	l.Close()
	if o := x.Execute(t.Context(), sshJob(t, "true")); !errors.Is(o.Err, syscall.ECONNREFUSED) || o.Status != NoStatus {
		t.Errorf("a closed port: %+v", o)
	}
}

// stallsAfter accepts one connection, greets, and says no more.
func (s *sshServer) stallsAfter(t *testing.T, l net.Listener, x *SSH, greeting string) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	done := make(chan Outcome, 1)
	go func() { done <- x.Execute(ctx, sshJob(t, "true")) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(greeting)); err != nil {
		t.Fatal(err)
	}
	// The client's first words say that the handshake is under way.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	revoked := errors.New("revoked")
	began := time.Now()
	cancel(revoked)
	if o := <-done; !errors.Is(o.Err, revoked) || o.Status != NoStatus || time.Since(began) > 500*time.Millisecond {
		t.Errorf("after %q: %+v after %v", greeting, o, time.Since(began))
	}
}
