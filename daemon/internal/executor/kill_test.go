package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// survivors are scripts that try to outlive their call. WORD is in the command
// line of everything they leave.
var survivors = map[string]struct {
	text   string
	sleeps int // how many are there once it has begun
}{
	"a plain child":       {"sleep 97531.WORD & echo ready; wait", 1},
	"setsid":              {"setsid sleep 97531.WORD & echo ready; wait", 1},
	"nohup in background": {"nohup sleep 97531.WORD >/dev/null 2>&1 & echo ready; sleep 97531.WORD", 2},
	"a double fork":       {"(setsid sh -c 'setsid sleep 97531.WORD & sleep 97531.WORD' &) ; echo ready; sleep 97531.WORD", 3},
	"signals ignored":     {"trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep 97531.WORD' & echo ready; sleep 97531.WORD", 2},
	"output closed":       {"setsid sleep 97531.WORD >/dev/null 2>&1 </dev/null & echo ready; sleep 97531.WORD", 2},
}

func script(text, word string) []string {
	return []string{"sh", "-c", strings.ReplaceAll(text, "WORD", word)}
}

// unique is a number that no other process has in its command line.
func unique() string { return fmt.Sprintf("%d%d", os.Getpid(), time.Now().UnixNano()%1_000_000_000) }

func TestNothingOutlivesACancelledCall(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		for name, survivor := range survivors {
			t.Run(name, func(t *testing.T) {
				word := unique()
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var out collected
				done := make(chan Outcome, 1)
				go func() { done <- e.Execute(ctx, Job{Argv: script(survivor.text, word), As: me(t), Stdout: &out}) }()
				until(t, 5*time.Second, "the script is ready", func() bool { return out.String() == "ready\n" && asleep(word) == survivor.sleeps })
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
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan Outcome, 1)
		go func() {
			done <- e.Execute(ctx, Job{Argv: script("while :; do sleep 97531.WORD & done", word), As: me(t)})
		}()
		until(t, 10*time.Second, "the loop has forked a hundred times", func() bool { return asleep(word) >= 100 })
		began := time.Now()
		cancel()
		o := <-done
		if took := time.Since(began); o.Err == nil || took > time.Second {
			t.Errorf("%+v after %v", o, took)
		}
		if n := alive("97531." + word); n > 0 {
			t.Errorf("%d processes are left", n)
		}
	})
}

// TestABombWhosePartsResistIsGoneWithinASecond is a bomb whose parts ignore what
// can be ignored and have sessions of their own, ended in the two ways that an
// executor knows: by its context (revoke, cancel, the peer's going away) where
// there is a control group, and by its time where there is none.
func TestABombWhosePartsResistIsGoneWithinASecond(t *testing.T) {
	const bomb = "trap '' TERM HUP INT QUIT; i=0; while [ $i -lt COUNT ]; do setsid sleep 97531.WORD & i=$((i+1)); done; echo up; wait"
	containments(t, func(t *testing.T, e *Exec) {
		byTime := e.groups == nil
		word := unique()
		ctx, stop := context.WithCancelCause(t.Context())
		defer stop(nil)
		done, up := make(chan Outcome, 1), make(chan struct{}, 1)
		told := writerFunc(func(p []byte) (int, error) { up <- struct{}{}; return len(p), nil })
		go func() {
			done <- e.Execute(ctx, Job{Argv: script(strings.Replace(bomb, "COUNT", strconv.Itoa(resisting), 1), word), As: me(t), Stdout: told})
		}()
		<-up
		// Looking is dear, with so many: rarely, and not while they start.
		for asleep(word) < resisting {
			time.Sleep(100 * time.Millisecond)
		}
		began := time.Now()
		if byTime {
			stop(errTimeout) // as the timer does
		} else {
			stop(errors.New("revoked"))
		}
		o := <-done
		took := time.Since(began)
		if o.TimedOut != byTime || took > time.Second {
			t.Errorf("%+v after %v", o, took)
		}
		if n := alive("97531." + word); n > 0 {
			t.Errorf("%d processes are left", n)
		}
		t.Logf("%d gone after %v", resisting, took)
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
		for kind, survivor := range survivors {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				word := unique()
				daemon := exec.Command(self(t))
				daemon.Env = append(os.Environ(), roleVariable+"=run-a-daemon", "WITHOUT_GROUPS="+without,
					"DAEMON_ARGV="+strings.Join(script(survivor.text, word), "\x1f"))
				var out collected
				daemon.Stdout = &out
				if err := daemon.Start(); err != nil {
					t.Fatal(err)
				}
				until(t, 10*time.Second, "the work has begun", func() bool {
					return strings.Contains(out.String(), "ready") && asleep(word) == survivor.sleeps
				})
				if err := daemon.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = daemon.Wait()
				until(t, 2*time.Second, "no process of the work is left", func() bool { return alive("97531."+word) == 0 })
				if g, err := findGroups(); err == nil && without == "" {
					left := filepath.Join(filepath.Dir(g.parent), "openscope-"+strconv.Itoa(daemon.Process.Pid))
					until(t, 2*time.Second, "the control groups are taken away", func() bool {
						_, err := os.Stat(left)
						return errors.Is(err, fs.ErrNotExist)
					})
				}
			})
		}
	}
}

func TestAWriterThatTakesLessThanItIsGivenKills(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	o := e.Execute(t.Context(), Job{
		Argv: []string{"sh", "-c", "echo x; sleep 60"}, As: me(t),
		Stdout: writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil }),
	})
	if !errors.Is(o.Err, io.ErrShortWrite) {
		t.Errorf("%+v", o)
	}
}

// Both run as the same user here, so that the command may signal its shim.
func TestACommandThatAttacksItsShimStillDies(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		for _, signal := range []string{"STOP", "KILL"} {
			if signal == "KILL" && e.groups == nil {
				continue // not promised: see Exec
			}
			t.Run(signal, func(t *testing.T) {
				word := unique()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var out collected
				done := make(chan Outcome, 1)
				text := "setsid sleep 97531.WORD & echo ready; kill -" + signal + " $PPID; sleep 97531.WORD"
				go func() { done <- e.Execute(ctx, Job{Argv: script(text, word), As: me(t), Stdout: &out}) }()
				if signal == "STOP" {
					until(t, 5*time.Second, "the shim is stopped", func() bool { return out.String() == "ready\n" && asleep(word) == 2 })
				}
				began := time.Now()
				cancel()
				o := <-done
				if took := time.Since(began); o.Err == nil || took > time.Second {
					t.Errorf("%+v after %v", o, took)
				}
				if n := alive("97531." + word); n > 0 {
					t.Errorf("%d processes are left", n)
				}
			})
		}
	})
}

func TestNoDescriptorIsLeftBehind(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		run(t, e, "true") // what the first call opens for good
		before := openFiles(t)
		for range 5 {
			run(t, e, "true")
			run(t, e, "/no/such/file")
			e.Execute(t.Context(), Job{Argv: []string{"sleep", "60"}, As: me(t), Timeout: 20 * time.Millisecond})
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}
