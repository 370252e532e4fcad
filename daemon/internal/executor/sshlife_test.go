package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const targetVariable = "EXECUTOR_TEST_TARGET"

// sshOrder is what runOverSSH is to do.
type sshOrder struct {
	Target SSHTarget
	As     Identity
	Argv   []string
}

// runOverSSH executes a command on a target as a daemon would, until it is
// killed.
func runOverSSH() {
	var o sshOrder
	if err := json.Unmarshal([]byte(os.Getenv(targetVariable)), &o); err != nil {
		panic(err)
	}
	x, err := NewSSH(SSHConfig{Targets: map[string]SSHTarget{"t": o.Target}})
	if err != nil {
		panic(err)
	}
	fmt.Println(x.Execute(context.Background(), Job{Argv: o.Argv, As: o.As, Issuer: o.As.Name, Target: "t", Stdout: os.Stdout}))
}

func TestAKilledDaemonTakesItsRemoteWorkWithIt(t *testing.T) {
	s := newSSHServer(t)
	for name, text := range map[string]string{
		"a plain child": "sleep 97531.WORD & echo ready; wait",
		"TERM ignored":  "trap '' TERM HUP; echo ready; sleep 97531.WORD; sleep 97531.WORD",
	} {
		word := unique()
		order, err := json.Marshal(sshOrder{Target: s.target, As: me(t), Argv: script(text, word)})
		if err != nil {
			t.Fatal(err)
		}
		var out collected
		daemon := exec.Command(self(t))
		daemon.Env = append(os.Environ(), roleVariable+"=run-over-ssh", targetVariable+"="+string(order))
		daemon.Stdout, daemon.Stderr = &out, os.Stderr
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, name+" is ready", func() bool { return out.String() == "ready\n" && asleep(word) == 1 })
		if err := daemon.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = daemon.Wait()
		took := until(t, 2*time.Second, name+" is gone", func() bool { return alive("97531."+word) == 0 })
		t.Logf("%s: gone %v after kill -9", name, took)
	}
}

func TestATargetRunsNoMoreAtOnceThanItTakes(t *testing.T) {
	s := newSSHServer(t)
	x := s.executor(t, func(target *SSHTarget) { target.MaxSessions = 2 })
	word := unique()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan Outcome, 2)
	for range 2 {
		go func() { done <- x.Execute(ctx, sshJob(t, script("exec sleep 97531.WORD", word)...)) }()
	}
	until(t, 10*time.Second, "two run", func() bool { return asleep(word) == 2 })
	third := sshJob(t, script("echo ran", word)...)
	third.Timeout = 300 * time.Millisecond
	var out collected
	third.Stdout = &out
	if o := x.Execute(t.Context(), third); !o.TimedOut || o.Status != NoStatus || out.String() != "" {
		t.Errorf("the third: %+v, %q", o, out.String())
	}
	cancel()
	<-done
	<-done
	third.Timeout = 0
	if o := x.Execute(t.Context(), third); o.Err != nil || out.String() != "ran\n" {
		t.Errorf("after them: %+v, %q", o, out.String())
	}
}
