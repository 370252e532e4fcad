package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// survivors are scripts that try to outlive their call. WORD is in the command
// line of everything they leave.
var survivors = map[string]string{
	"a plain child":       "sleep 97531.WORD & echo ready; wait",
	"setsid":              "setsid sleep 97531.WORD & echo ready; wait",
	"nohup in background": "nohup sleep 97531.WORD >/dev/null 2>&1 & echo ready; sleep 97531.WORD",
	"a double fork":       "(setsid sh -c 'setsid sleep 97531.WORD & sleep 97531.WORD' &) ; echo ready; sleep 97531.WORD",
	"signals ignored":     "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep 97531.WORD' & echo ready; sleep 97531.WORD",
	"output closed":       "setsid sleep 97531.WORD >/dev/null 2>&1 </dev/null & echo ready; sleep 97531.WORD",
}

func script(text, word string) []string {
	return []string{"sh", "-c", strings.ReplaceAll(text, "WORD", word)}
}

// unique is a number that no other process has in its command line.
func unique() string { return fmt.Sprintf("%d%d", os.Getpid(), time.Now().UnixNano()%1_000_000_000) }

func TestNothingOutlivesACancelledCall(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		for name, text := range survivors {
			t.Run(name, func(t *testing.T) {
				word := unique()
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var out collected
				done := make(chan Outcome, 1)
				go func() { done <- e.Execute(ctx, Job{Argv: script(text, word), As: me(t), Stdout: &out}) }()
				until(t, 5*time.Second, "the script is ready", func() bool { return out.String() == "ready\n" && alive("97531."+word) > 0 })
				revoked := errors.New("revoked")
				began := time.Now()
				cancel(revoked)
				o := <-done
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if !errors.Is(o.Err, revoked) {
					t.Errorf("%+v", o)
				}
				if n := alive("97531." + word); n > 0 {
					t.Errorf("%d processes are left when Execute returns", n)
				}
			})
		}
	})
}

func TestNothingOutlivesACallThatEnds(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		word := unique()
		_, _, o := run(t, e, script("setsid sleep 97531.WORD >/dev/null 2>&1 & exit 4", word)...)
		if o.Status != 4 || o.Err != nil {
			t.Errorf("%+v", o)
		}
		if n := alive("97531." + word); n > 0 {
			t.Errorf("%d processes are left", n)
		}
	})
}

func TestAForkLoopDies(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		word := unique()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		o := e.Execute(ctx, Job{Argv: script("while :; do sh -c 'sleep 97531.WORD' & sleep 0.002; done", word), As: me(t)})
		if took := time.Since(began); o.Err == nil || took > 2*time.Second {
			t.Errorf("%+v after %v", o, took)
		}
		if n := alive("97531." + word); n > 0 {
			t.Errorf("%d processes are left", n)
		}
	})
}

func TestAVerbsTimeIsUp(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		began := time.Now()
		o := e.Execute(t.Context(), Job{Argv: []string{self(t), "resist"}, As: me(t), Timeout: 200 * time.Millisecond})
		if took := time.Since(began); !o.TimedOut || o.Err != nil || took > 1500*time.Millisecond {
			t.Errorf("%+v after %v", o, took)
		}
	})
}

func TestAWriterThatFailsKills(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		full := errors.New("the limit is reached")
		word := unique()
		o := e.Execute(t.Context(), Job{
			Argv: script("echo x; sleep 97531.WORD", word), As: me(t),
			Stdout: writerFunc(func([]byte) (int, error) { return 0, full }),
		})
		if !errors.Is(o.Err, full) || alive("97531."+word) > 0 {
			t.Errorf("%+v, %d left", o, alive("97531."+word))
		}
	})
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestAStuckWriterDoesNotHoldBackTheKilling(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		word := unique()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reached, release := make(chan struct{}), make(chan struct{})
		defer close(release)
		stuck := writerFunc(func(p []byte) (int, error) {
			close(reached)
			<-release
			return len(p), nil
		})
		done := make(chan Outcome, 1)
		go func() {
			done <- e.Execute(ctx, Job{Argv: script("echo x; sleep 97531.WORD", word), As: me(t), Stdout: stuck})
		}()
		<-reached
		cancel()
		began := time.Now()
		until(t, time.Second, "the processes are gone", func() bool { return alive("97531."+word) == 0 })
		select {
		case o := <-done:
			if o.Err == nil {
				t.Errorf("%+v", o)
			}
		case <-time.After(2 * time.Second):
			t.Errorf("Execute waits for the writer, %v after the cancel", time.Since(began))
		}
	})
}

func TestAKilledDaemonTakesItsWorkWithIt(t *testing.T) {
	for name, without := range map[string]string{"control group": "", "process tree": "yes"} {
		for survivor, text := range survivors {
			t.Run(name+"/"+survivor, func(t *testing.T) {
				t.Parallel()
				word := unique()
				daemon := exec.Command(self(t))
				daemon.Env = append(os.Environ(), roleVariable+"=run-a-daemon", "WITHOUT_GROUPS="+without,
					"DAEMON_ARGV="+strings.Join(script(text, word), "\x1f"))
				var out collected
				daemon.Stdout = &out
				if err := daemon.Start(); err != nil {
					t.Fatal(err)
				}
				until(t, 10*time.Second, "the work has begun", func() bool {
					return strings.Contains(out.String(), "ready") && alive("97531."+word) > 1
				})
				if err := daemon.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = daemon.Wait()
				until(t, 2*time.Second, "no process of the work is left", func() bool { return alive("97531."+word) == 0 })
			})
		}
	}
}
