package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// startSSH is what people use today: a server inside offers a port of a jump
// host (ssh -R), the one outside takes it (ssh -L).
func startSSH(ctx context.Context, _ options, dir string) (*way, error) {
	w := &way{name: "ssh"}
	server, err := findProgram("sshd")
	if err != nil {
		return nil, fmt.Errorf("ssh: sshd is %w", errAbsent)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, key := range []string{"ssh_host", "ssh_user"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path(key)).CombinedOutput(); err != nil {
			return w, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	public, err := os.ReadFile(path("ssh_user.pub"))
	if err != nil {
		return w, err
	}
	if err := os.WriteFile(path("ssh_keys"), public, 0o600); err != nil {
		return w, err
	}
	jump, err := freePort("tcp")
	if err != nil {
		return w, err
	}
	_, port, _ := net.SplitHostPort(jump)
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxSessions 200\n",
		port, path("ssh_host"), path("ssh_keys"))
	if err := os.WriteFile(path("sshd_config"), []byte(config), 0o600); err != nil {
		return w, err
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return w, err
		}
	}
	sshd := exec.CommandContext(ctx, server, "-D", "-f", path("sshd_config"))
	if err := sshd.Start(); err != nil {
		return w, err
	}
	w.also, w.relay = append(w.also, await(sshd)), []int{sshd.Process.Pid}
	if w.origin, err = startPlayer(ctx, "origin", oneP, "ssh"); err != nil {
		return w, err
	}
	standing, err := w.origin.hear()
	if err != nil {
		return w, err
	}
	middle, err := freePort("tcp")
	if err != nil {
		return w, err
	}
	near, err := freePort("tcp")
	if err != nil {
		return w, err
	}
	for _, forward := range [][]string{{"-R", middle + ":" + standing.Where}, {"-L", near + ":" + middle}} {
		if err := w.forward(ctx, port, path("ssh_user"), forward); err != nil {
			return w, err
		}
	}
	w.client, err = startPlayer(ctx, "client", oneP, "ssh", near)
	return w, err
}

// forward starts one ssh and waits until it says that its forwarding stands.
func (w *way) forward(ctx context.Context, port, key string, args []string) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	ready := key + args[0] + ".ready"
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-N", "-q", "-p", port, "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ExitOnForwardFailure=yes", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=touch " + ready, "-F", "none"}, append(args, me.Username+"@127.0.0.1")...)...)
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) { // sshd may not listen yet
		attempt := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
		if err := attempt.Start(); err != nil {
			return err
		}
		s := await(attempt)
		w.also = append(w.also, s)
		if s.until(deadline, func() bool { _, err := os.Stat(ready); return err == nil }) {
			return nil
		}
	}
	return fmt.Errorf("ssh %s does not stand", strings.Join(args, " "))
}

// until waits for something of a process that stands; it reports whether it came
// before the process had gone, and in time.
func (s standing) until(deadline time.Time, came func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if came() {
			return true
		}
		select {
		case <-s.gone:
			return false
		case <-tick.C:
		}
	}
	return false
}

func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}
