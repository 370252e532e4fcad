package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"openscope/daemon"
)

// programs is the folder of the three programs, built once for all tests.
var programs string

func TestMain(m *testing.M) {
	daemon.Shim()
	code, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

// withPrograms builds the programs as a release does, without the race
// detector: they are what users run.
func withPrograms(run func() int) (code int, err error) {
	if programs, err = os.MkdirTemp("", "openscope-programs-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(programs)
	build := exec.Command("go", "build", "-o", programs+string(filepath.Separator),
		"openscope/daemon/cmd/openscope", "openscope/relay/cmd/openscope-relay", "openscope/client/cmd/openscope-reflect-client")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	// Other users run them too.
	if err := os.Chmod(programs, 0o755); err != nil {
		return 1, err
	}
	return run(), nil
}

// command is one of the programs, with an environment of its own.
func command(env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(programs, program), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, env...)
	return cmd
}

// run runs a program to its end.
func run(t testing.TB, env []string, program string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(env, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return out.String(), errs.String(), 0
}
