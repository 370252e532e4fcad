package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openscope/daemon/internal/control"
)

// spoiledPolicy is one thing that can be wrong with a file of the policy.
type spoiledPolicy struct {
	file  string
	spoil func(t *testing.T, path, good string)
}

func written(text string) func(*testing.T, string, string) {
	return edited(func(string) string { return text })
}

func edited(edit func(good string) string) func(*testing.T, string, string) {
	return func(t *testing.T, path, good string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(edit(good)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func moded(mode os.FileMode) func(*testing.T, string, string) {
	return func(t *testing.T, path, _ string) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// replaced puts something else in the place of the file, which is moved away.
func replaced(put func(path, moved string) error) func(*testing.T, string, string) {
	return func(t *testing.T, path, _ string) {
		t.Helper()
		if err := errors.Join(os.Rename(path, path+".moved"), put(path, path+".moved")); err != nil {
			t.Fatal(err)
		}
	}
}

// spoiledPolicies are for the user that the good grants name.
func spoiledPolicies() map[string]spoiledPolicy {
	grants := func(spoil func(*testing.T, string, string)) spoiledPolicy { return spoiledPolicy{"grants.yaml", spoil} }
	verbs := func(spoil func(*testing.T, string, string)) spoiledPolicy { return spoiledPolicy{"verbs.yaml", spoil} }
	recipients := func(spoil func(*testing.T, string, string)) spoiledPolicy {
		return spoiledPolicy{"recipients.yaml", spoil}
	}
	all := map[string]spoiledPolicy{
		"grants that are empty":                 grants(written("")),
		"grants that are a comment":             grants(written("# nothing yet\n")),
		"grants without agents":                 grants(written("agents: {}\n")),
		"grants with agents that are null":      grants(written("agents:\n")),
		"grants of another agent":               grants(edited(func(s string) string { return strings.Replace(s, "  you:", "  me:", 1) })),
		"grants for another user":               grants(edited(func(s string) string { return strings.Replace(s, "users: [", "users: [not-", 1) })),
		"grants for nobody":                     grants(edited(func(s string) string { return s[:strings.Index(s, "users:")] + s[strings.Index(s, "allow:"):] })),
		"grants for everybody, it says":         grants(edited(func(s string) string { return strings.Replace(s, "users: [", "users: [\"*\"] #", 1) })),
		"grants that allow nothing":             grants(edited(func(s string) string { return strings.Replace(s, "allow: [", "allow: [] # [", 1) })),
		"grants of a verb that is a star":       grants(edited(func(s string) string { return strings.ReplaceAll(s, "test.mark", "\"*\"") })),
		"grants that are not YAML":              grants(written("agents: [}")),
		"grants that are a list":                grants(written("- agents\n")),
		"grants that are a text":                grants(written("allow everything\n")),
		"grants with an unknown key":            grants(edited(func(s string) string { return s + "  more: true\n" })),
		"grants with a key twice":               grants(edited(func(s string) string { return s + s })),
		"grants with a key in upper case":       grants(edited(func(s string) string { return strings.Replace(s, "allow:", "Allow:", 1) })),
		"grants in two documents":               grants(edited(func(s string) string { return "---\nagents: {}\n---\n" + s })),
		"grants that begin with zeros":          grants(edited(func(s string) string { return "\x00\x00" + s })),
		"grants that are not UTF-8":             grants(edited(func(s string) string { return strings.Replace(s, "you", "y\xffu", 1) })),
		"grants of a megabyte and more":         grants(edited(func(s string) string { return s + strings.Repeat("#", 1<<20) })),
		"grants that are cut":                   grants(edited(func(s string) string { return s[:strings.Index(s, "allow:")+12] })),
		"grants with a rule that is a text":     grants(edited(func(s string) string { return strings.Replace(s, "{verb: test.mark}", "test.mark", 1) })),
		"grants that are not there":             grants(replaced(func(string, string) error { return nil })),
		"grants that are a folder":              grants(replaced(func(path, _ string) error { return os.Mkdir(path, 0o700) })),
		"grants that are a symbolic link":       grants(replaced(func(path, moved string) error { return os.Symlink(moved, path) })),
		"grants that are a link to nowhere":     grants(replaced(func(path, _ string) error { return os.Symlink("/nowhere", path) })),
		"grants that are a pipe":                grants(replaced(func(path, _ string) error { return syscall.Mkfifo(path, 0o600) })),
		"grants that are a device":              grants(replaced(func(path, _ string) error { return os.Symlink("/dev/zero", path) })),
		"grants that everybody may write":       grants(moded(0o666)),
		"grants that their group may write":     grants(moded(0o620)),
		"verbs that are empty":                  verbs(written("")),
		"verbs that are not there":              verbs(replaced(func(string, string) error { return nil })),
		"verbs that everybody may write":        verbs(moded(0o602)),
		"verbs that are a symbolic link":        verbs(replaced(func(path, moved string) error { return os.Symlink(moved, path) })),
		"verbs with an executor there is not":   verbs(edited(func(s string) string { return strings.Replace(s, "executor: exec", "executor: shell", 1) })),
		"verbs with a shell line":               verbs(edited(func(s string) string { return strings.Replace(s, "argv: [/bin/mktemp", "command: [/bin/mktemp", 1) })),
		"recipients that everybody may write":   recipients(moded(0o666)),
		"recipients that are a symbolic link":   recipients(replaced(func(path, moved string) error { return os.Symlink(moved, path) })),
		"recipients that are empty":             recipients(written("")),
		"recipients with a key that is cut":     recipients(edited(func(s string) string { return s[:len(s)-4] + "}\n" })),
		"grants in a folder that all may write": grants(func(t *testing.T, path, _ string) { moded(0o777)(t, filepath.Dir(path), "") }),
	}
	if os.Geteuid() == 0 {
		all["grants of somebody else's"] = grants(func(t *testing.T, path, _ string) {
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		})
	}
	return all
}

func TestAPolicyThatIsNotGoodAllowsNothing(t *testing.T) {
	t.Parallel()
	cases := spoiledPolicies()
	refused := 0
	for name, c := range cases {
		h := newHostileHalf(t)
		path := filepath.Join(h.dir, c.file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(t, path, string(good))

		// A running daemon does not take it, or takes it and denies.
		_ = h.reload()
		// One that starts refuses to, or denies.
		cfg := h.cfg
		cfg.StateDir = filepath.Join(h.dir, "again")
		if err := errors.Join(os.Mkdir(cfg.StateDir, 0o700), NewIdentityFile(filepath.Join(cfg.StateDir, "identity.key"), rand.Reader)); err != nil {
			t.Fatal(err)
		}
		again, err := newCore(cfg)
		if err != nil {
			refused++
			continue
		}
		again.network = h
		if err := again.openLog(); err != nil {
			t.Errorf("%s: the log: %v", name, err)
			continue
		}
		working, stop := context.WithCancel(h.ctx)
		again.start(working)
		opened, err := again.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
		if err == nil || opened.Handle != "" {
			t.Errorf("%s: a session is opened", name)
		}
		if !strings.HasPrefix(name, "recipients") {
			r, err := again.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "x"}}}, io.Discard, io.Discard)
			if err == nil && r.Cause != "denied" {
				t.Errorf("%s: a call ends as %s", name, r.Cause)
			}
		}
		stop()
		again.calls.Wait()
		if err := again.closeLog(); err != nil {
			t.Error(err)
		}
		if n := h.left("mark.*"); n != 0 {
			t.Errorf("%s: %d runs", name, n)
		}
	}
	if len(cases) < 30 || refused == 0 {
		t.Errorf("%d cases, %d of them refused at the start", len(cases), refused)
	}
	t.Logf("%d policies, %d of them refused at the start, the others deny", len(cases), refused)
}
