package bench

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the command lines of testdata/scripts against the programs.
// Beside testscript's own, scripts have
//
//	site              starts a relay and a daemon and sets the environment for them
//	exit N PROG ARGS  runs a program that must end with the code; an error must be
//	                  one line, and at most a hint; what --json prints must be as
//	                  its schema says
//	waits VAR ID      waits until a call of the session does, and keeps its name
//	halt              ends the daemon and waits until it has; again starts another
//	reload            has the daemon read its files again, and waits until it has
//	opened VAR        keeps the handle of the last share open, and its id in VAR_ID
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("../testdata/scripts/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error {
					env.Setenv("PATH", programs+":"+os.Getenv("PATH"))
					env.Setenv("HOME", env.WorkDir)
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"site":   func(ts *testscript.TestScript, _ bool, _ []string) { scriptSite(t, ts) },
					"exit":   scriptExit,
					"opened": scriptOpened,
					"waits":  scriptWaits,
					"reload": scriptReload,
					"halt":   scriptHalt,
					"again":  func(ts *testscript.TestScript, _ bool, _ []string) { scriptAgain(t, ts) },
				},
			})
		})
	}
}

func scriptSite(t *testing.T, ts *testscript.TestScript) {
	s := newSite(t)
	s.words = strings.TrimSpace(s.must("openscope", "fingerprint"))
	s.words, _, _ = strings.Cut(s.words, "\n")
	for _, pair := range s.env() {
		name, value, _ := strings.Cut(pair, "=")
		ts.Setenv(name, value)
	}
	ts.Setenv("SITE", s.dir)
	ts.Setenv("DAEMON", strconv.Itoa(s.daemon.cmd.Process.Pid))
	ts.Setenv("LISTEN", s.listen)
	ts.Setenv("PIN", s.pin)
}

func scriptExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit N PROG ARGS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	if got == 0 && slices.Contains(args, "--json") {
		ts.Check(conforms(args[1], args[2:], ts.ReadFile("stdout")))
	}
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stderr"), "\n"), "\n")
	if want != 0 && (len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ")) {
		ts.Fatalf("the error is not one line and a hint")
	}
	if want != 0 && !strings.HasPrefix(lines[0], args[1]+": ") {
		ts.Fatalf("the error does not begin with the program's name")
	}
}

// scriptPoll waits for what cannot be waited for.
func scriptPoll(ts *testscript.TestScript, what string, met func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(10 * time.Second); !met(); <-tick.C {
		if time.Now().After(late) {
			ts.Fatalf("not within 10 s: %s", what)
		}
	}
}

func scriptWaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waits VAR ID")
	}
	scriptPoll(ts, "a call waits", func() bool {
		var shown struct{ Waiting []struct{ Call string } }
		ts.Check(ts.Exec("openscope", "share", "show", args[1], "--json"))
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &shown))
		if len(shown.Waiting) > 0 {
			ts.Setenv(args[0], shown.Waiting[0].Call)
		}
		return len(shown.Waiting) > 0
	})
}

func scriptReload(ts *testscript.TestScript, neg bool, args []string) {
	reloads := func() int {
		ts.Check(ts.Exec("openscope", "audit", "tail", "--json"))
		return strings.Count(ts.ReadFile("stdout"), `"kind":"reload"`)
	}
	pid, err := strconv.Atoi(ts.Getenv("DAEMON"))
	ts.Check(err)
	before := reloads()
	ts.Check(syscall.Kill(pid, syscall.SIGHUP))
	scriptPoll(ts, "the daemon has read its files again", func() bool { return reloads() > before })
}

func scriptHalt(ts *testscript.TestScript, neg bool, args []string) {
	pid, err := strconv.Atoi(ts.Getenv("DAEMON"))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGTERM))
	scriptPoll(ts, "the daemon has ended", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

func scriptAgain(t *testing.T, ts *testscript.TestScript) {
	s := &site{t: t, dir: ts.Getenv("SITE")}
	daemon := startProcess(t, s.env(), "openscope", "daemon")
	ts.Setenv("DAEMON", strconv.Itoa(daemon.cmd.Process.Pid))
	scriptPoll(ts, "the daemon answers", func() bool { return ts.Exec("openscope", "status") == nil })
}

func scriptOpened(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: opened VAR")
	}
	for _, word := range strings.Fields(ts.ReadFile("stdout")) {
		word = strings.TrimSuffix(word, ",")
		switch {
		case strings.HasPrefix(word, "osh1"):
			ts.Setenv(args[0], word)
		case strings.HasPrefix(word, "s-") && ts.Getenv(args[0]+"_ID") == "":
			ts.Setenv(args[0]+"_ID", word)
		}
	}
	if ts.Getenv(args[0]) == "" || ts.Getenv(args[0]+"_ID") == "" {
		ts.Fatalf("share open printed no handle or no id")
	}
}
