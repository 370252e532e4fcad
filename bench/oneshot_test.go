package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const scriptedVerbs = `
verbs:
  test.both:
    summary: Say something to each side, and fail
    class: read
    executor: exec
    argv: [/bin/sh, -c, "echo out; echo err >&2; exit 3"]
  test.count:
    summary: Two million bytes, as fast as they come
    class: read
    executor: exec
    argv: [/usr/bin/seq, "1", "300000"]
  test.follow:
    summary: Follow a file that grows for ever
    class: read
    executor: exec
    argv: [/usr/bin/tail, -n, "1", -f, DIR/growing]
`

const scriptedGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.both}, {verb: test.count}, {verb: test.follow}]
    delegate: {to: [vendor-b], verbs: [test.both, test.count, test.follow]}
`

// scripted is a world whose verbs are what scripts meet, and the environment of a
// recipient in it.
func scripted(t *testing.T) (w *world, env []string) {
	t.Helper()
	w = newWorld(t)
	w.setRules(scriptedVerbs, scriptedGrants)
	w.writeKey()
	_, h := w.open("10m", "test.both", "test.count", "test.follow")
	return w, w.clientEnv(h)
}

func TestAScriptHasOutputAndErrorsApart(t *testing.T) {
	t.Parallel()
	_, env := scripted(t)
	const failed = "openscope-reflect-client: test.both exited with status 3\n"
	if stdout, stderr, code := run(t, env, "openscope-reflect-client", "call", "test.both"); code != 5 || stdout != "out\n" || stderr != "err\n"+failed {
		t.Errorf("exit %d\nstdout %q\nstderr %q", code, stdout, stderr)
	}
	stdout, stderr, code := run(t, env, "openscope-reflect-client", "call", "--json", "test.both")
	if code != 5 || stderr != failed {
		t.Errorf("as JSON: exit %d, stderr %q", code, stderr)
	}
	streams := make(map[string]string)
	var last struct {
		Cause, Verb string
		Status      int
		ExitCode    int `json:"exit_code"`
		Complete    bool
	}
	for line := range strings.Lines(stdout) {
		var piece struct{ Stream, Text string }
		if err := json.Unmarshal([]byte(line), &piece); err != nil {
			t.Errorf("no JSON: %q", line)
		}
		if piece.Stream == "" {
			_ = json.Unmarshal([]byte(line), &last)
			continue
		}
		streams[piece.Stream] += piece.Text
	}
	if streams["stdout"] != "out\n" || streams["stderr"] != "err\n" {
		t.Errorf("as JSON: %q", streams)
	}
	if last.Verb != "test.both" || last.Cause != "exited" || last.Status != 3 || last.ExitCode != 5 || !last.Complete {
		t.Errorf("as JSON it ends with %+v", last)
	}
}

func TestOutputThatCannotBeWrittenIsNeverSuccess(t *testing.T) {
	t.Parallel()
	_, env := scripted(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here: ", err)
	}
	defer full.Close()
	for _, args := range [][]string{{"call", "test.count"}, {"call", "--raw", "test.count"}, {"call", "--json", "test.count"}} {
		cmd := command(env, "openscope-reflect-client", args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(stderr.String(), "cancelled") {
			t.Errorf("%v: exit %d: %s", args, code, stderr.String())
		}
	}
}

func TestWhatCouldNotBePrintedWasNotDone(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here: ", err)
	}
	defer full.Close()
	w, env := scripted(t)
	for _, line := range []string{
		"openscope version", "openscope share open --help", "openscope status", "openscope share list", "openscope share list --json", "openscope audit tail",
		"openscope verbs --agent you", "openscope completion bash", "openscope-relay version --json", "openscope-relay --help",
		"openscope-reflect-client verbs", "openscope-reflect-client inspect", "openscope-reflect-client receipts", "openscope-reflect-client completion fish",
	} {
		words := strings.Fields(line)
		cmd := command(append(env, w.env()...), words[0], words[1:]...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s >/dev/full: exit %d, %q", line, cmd.ProcessState.ExitCode(), stderr.String())
		}
	}
}

func TestWhoeverLeavesACallEndsTheRemoteWork(t *testing.T) {
	t.Parallel()
	w, env := scripted(t)
	runs := func() bool { return exec.Command("pgrep", "-f", "tail -n 1 -f "+w.dir).Run() == nil }
	for how, leave := range map[string]func(cmd *exec.Cmd, r *os.File) error{
		"a reader that closes its pipe": func(_ *exec.Cmd, r *os.File) error { return r.Close() },
		"an interrupt":                  func(cmd *exec.Cmd, _ *os.File) error { return cmd.Process.Signal(os.Interrupt) },
		"a SIGTERM":                     func(cmd *exec.Cmd, _ *os.File) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		r, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(env, "openscope-reflect-client", "call", "test.follow")
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.Close()
		if line, err := bufio.NewReader(r).ReadString('\n'); line != "one line\n" || !runs() {
			t.Errorf("%s: before it, %q, %v, running %v", how, line, err, runs())
		}
		if err := leave(cmd, r); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		r.Close()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%s: exit %d", how, code)
		}
		until(t, 2*time.Second, "the remote work is gone", func() bool { return !runs() })
	}
}
