package executor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var system = []string{"/usr", "/lib", "/lib64", "/bin", "/etc"}

// sandboxed runs a shell script in a sandbox, with nothing but the system and
// what is given to touch.
func sandboxed(t *testing.T, e *Exec, s Sandbox, script string) (string, Outcome) {
	t.Helper()
	for _, path := range system {
		if _, err := os.Stat(path); err == nil {
			s.Read = append(s.Read, path)
		}
	}
	var out collected
	o := e.Execute(t.Context(), Job{Argv: []string{"/bin/sh", "-c", script}, As: me(t), Sandbox: &s, Stdout: &out, Stderr: &out})
	return out.String(), o
}

func TestASandboxedCommandTouchesNothingElse(t *testing.T) {
	if _, err := landlockVersion(); err != nil {
		t.Skip("this kernel has no Landlock: ", err)
	}
	containments(t, func(t *testing.T, e *Exec) {
		dir := t.TempDir()
		inside, outside := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		for _, d := range []string{inside, outside} {
			if err := os.Mkdir(d, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d, "f"), []byte("text\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		read := "cat " + inside + "/f"
		out, o := sandboxed(t, e, Sandbox{Read: []string{inside}}, read+" && echo x >/dev/null && ! echo x >"+inside+"/f && ! cat "+outside+"/f && ! ls "+outside)
		if o.Err != nil || o.Status != 0 || !strings.Contains(out, "text\n") {
			t.Errorf("reading: %q, %+v", out, o)
		}
		out, o = sandboxed(t, e, Sandbox{Write: []string{inside}}, "echo new >"+inside+"/g && rm "+inside+"/f && ! touch "+outside+"/g && ! rm "+outside+"/f")
		if o.Err != nil || o.Status != 0 {
			t.Errorf("writing: %q, %+v", out, o)
		}
		if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingOutlivesASandboxedCall(t *testing.T) {
	if _, err := landlockVersion(); err != nil {
		t.Skip("this kernel has no Landlock: ", err)
	}
	containments(t, func(t *testing.T, e *Exec) {
		word := unique()
		out, o := sandboxed(t, e, Sandbox{}, "setsid sleep 97531."+word+" & sleep 0.05; echo done")
		if o.Err != nil || out != "done\n" || asleep(word) != 0 {
			t.Errorf("%q, %+v, %d left", out, o, asleep(word))
		}
	})
}

func TestACommandWithoutNetworkHasNone(t *testing.T) {
	if _, err := landlockVersion(); err != nil {
		t.Skip("this kernel has no Landlock: ", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can take the network away")
	}
	out, o := sandboxed(t, newExecutor(t, ExecConfig{}), Sandbox{Read: []string{"/proc"}, NoNetwork: true}, "cat /proc/self/net/dev")
	if o.Err != nil || strings.Count(out, ":") != 1 || !strings.Contains(out, "lo:") {
		t.Errorf("%q, %+v", out, o)
	}
}

func TestASandboxThatCannotBeHeldRunsNothing(t *testing.T) {
	for _, s := range []Sandbox{{Read: []string{"/no/such/path"}}, {Write: []string{"relative"}}} {
		if out, o := sandboxed(t, newExecutor(t, ExecConfig{}), s, "echo ran"); !errors.Is(o.Err, ErrSandbox) && !errors.Is(o.Err, ErrJob) || out != "" || o.Status != NoStatus {
			t.Errorf("%+v: %q, %+v", s, out, o)
		}
	}
}
