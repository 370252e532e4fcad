package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// roleVariable names the role this program plays when it is not the demo.
const roleVariable = "OPENSCOPE_DEMO_ROLE"

// playRole is the service (it writes its log until it is killed) or the tool
// that restarts it (as systemctl would).
func playRole(role string, args []string) int {
	var err error
	switch {
	case role == "service" && len(args) == 1:
		err = serve(args[0])
	default:
		err = fmt.Errorf("no such role: %s %q", role, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve is the service: a line in its log every fifth of a second.
func serve(dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "web.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "web.pid"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(log, "%s web[%d]: request %d answered in %d ms\n", time.Now().Format(time.TimeOnly), os.Getpid(), n, 3+n%5); err != nil {
			return err
		}
		<-tick.C
	}
}

// servicectl is what the verb ssh.restart_service runs on the target: it ends
// the old process, starts a new one that outlives the connection, and says so.
const servicectl = `#!/bin/sh
set -eu
[ "$1" = restart ] && [ "$2" = web ] || { echo "no such service: $2" >&2; exit 4; }
old=$(cat DIR/web.pid)
kill "$old"
OPENSCOPE_DEMO_ROLE=service setsid SELF DIR </dev/null >/dev/null 2>&1 &
new=$old
while [ "$new" = "$old" ]; do sleep 0.05; new=$(cat DIR/web.pid); done
echo "web restarted: process $old is now $new"
`

func (s *stage) startService(ctx context.Context) error {
	s.say("A service called web, which writes its log to %s", s.path("web.log"))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The path of this program is gone once `go run` has ended; the copy is not.
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("web"), program, 0o755); err != nil {
		return err
	}
	script := strings.NewReplacer("DIR", s.dir, "SELF", s.path("web")).Replace(servicectl)
	if err := os.WriteFile(s.path("servicectl"), []byte(script), 0o755); err != nil {
		return err
	}
	service := exec.Command(s.path("web"), s.dir)
	service.Env = []string{roleVariable + "=service"}
	service.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := service.Start(); err != nil {
		return err
	}
	go service.Wait() // it is killed by the verb, or at the end
	return s.eventually(ctx, "the service writes its process id", func() bool { return s.servicePID() != 0 })
}

// servicePID is the service's process now, or 0.
func (s *stage) servicePID() int {
	text, err := os.ReadFile(s.path("web.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
