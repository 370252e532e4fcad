package daemon

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
	"openscope/wire"
	"openscope/wire/term"
)

// installation is a folder as openscope init makes one, with all the files that
// a daemon believes; it returns the configuration's path.
func installation(t *testing.T) string {
	t.Helper()
	top, err := os.MkdirTemp("", "openscope-etc-") // protected, as t.TempDir need not be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	dir := filepath.Join(top, "etc")
	token, err := wire.NewToken(rand.Reader)
	if err := errors.Join(err, os.Mkdir(dir, 0o755), os.Mkdir(filepath.Join(dir, "state"), 0o700), os.Mkdir(filepath.Join(dir, "run"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"openscope.yaml": "state_dir: state\nsocket: run/openscope.sock\nrelays: [{address: '127.0.0.1:1'}]\n", "token": token.Text() + "\n",
		"grants.yaml": "agents: {}\n", "verbs.yaml": "verbs: {}\n", "recipients.yaml": "recipients: {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := NewIdentityFile(filepath.Join(dir, "state", "identity.key"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "openscope.yaml")
}

// starts reports whether a daemon would start with it, and run something.
func starts(path string) error {
	cfg, err := LoadConfig(path)
	if err != nil {
		return err
	}
	d, err := New(cfg)
	if err != nil {
		return err
	}
	if l := d.core.rules.Load().lockdown; l != nil {
		return l.refusal()
	}
	return nil
}

// TestNothingIsBelievedThatOthersCouldHavePutThere is P2: each file that the
// daemon believes, spoiled in each way, and each folder that one lies in.
func TestNothingIsBelievedThatOthersCouldHavePutThere(t *testing.T) {
	t.Parallel()
	ways := map[string]func(path string) error{
		"a symbolic link": func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		},
		"a hard link":         func(path string) error { return os.Link(path, path+".second") },
		"writable by a group": func(path string) error { return os.Chmod(path, 0o620) },
		"writable by all":     func(path string) error { return os.Chmod(path, 0o602) },
		"a folder":            func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"in an open folder":   func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) },
		"in a group's folder": func(path string) error { return os.Chmod(filepath.Dir(path), 0o775) },
		"below a link to an open folder": func(path string) error {
			dir, open := filepath.Dir(path), filepath.Dir(filepath.Dir(path))+"/moved"
			return errors.Join(os.Rename(dir, open), os.Chmod(open, 0o777), os.Symlink(open, dir))
		},
	}
	if os.Geteuid() == 0 {
		ways["somebody else's"] = func(path string) error { return os.Chown(path, 4711, -1) }
		ways["in somebody else's folder"] = func(path string) error { return os.Chown(filepath.Dir(path), 4711, -1) }
	}
	if err := starts(installation(t)); err != nil {
		t.Fatal(err) // nothing would be shown by what follows
	}
	cases := 0
	for _, file := range []string{"openscope.yaml", "token", "grants.yaml", "verbs.yaml", "recipients.yaml", "state/identity.key", "state/lockdown"} {
		for name, spoil := range ways {
			path := installation(t)
			target := filepath.Join(filepath.Dir(path), file)
			if file == "state/lockdown" {
				// One that is good would be a lockdown too: here it is what lifts one.
				if err := os.WriteFile(target, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := spoil(target); err != nil {
				t.Fatal(err)
			}
			cases++
			err := starts(path)
			if err == nil {
				t.Errorf("%s that is %s is believed", file, name)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s that is %s: %q", file, name, err)
			}
		}
	}
	for name, mode := range map[string]fs.FileMode{"all": 0o777, "a group": 0o775} {
		path := installation(t)
		if err := os.Chmod(filepath.Join(filepath.Dir(path), "run"), mode); err != nil {
			t.Fatal(err)
		}
		if cases++; starts(path) == nil {
			t.Errorf("a socket in a folder that %s may write to is made", name)
		}
	}
	for _, secret := range []string{"token", "state/identity.key"} {
		path := installation(t)
		if err := os.Chmod(filepath.Join(filepath.Dir(path), secret), 0o640); err != nil {
			t.Fatal(err)
		}
		if cases++; starts(path) == nil {
			t.Errorf("a %s that others may read is used", secret)
		}
	}
	t.Logf("%d cases", cases)
}

// namesNobodyHas are names that would be something else as a path, a line of a
// log, an option or a header.
func namesNobodyHas() []string {
	return []string{
		"", " ", ".", "..", "/", "a/b", "../a", "..\\a", "a\x00b", "\x00", "a\nb", "\n", "a\rb", "\x1b[2J", "-a", "--all", "~", "*", "a b", "A", "é", "\u202ea", "\xff", "%2e%2e",
		"/etc/passwd", "../../etc/passwd", strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("a", 5000), strings.Repeat("../", 100) + "etc/passwd", "a\x00/../b",
	}
}

// tree is every name below a folder.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestANameIsOnlyAName is P3: what is no name of anything is refused wherever one
// is taken, as a mistake of who asks, and leaves no file behind.
func TestANameIsOnlyAName(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	before := tree(t, h.dir)
	root := principal.NewContext(h.ctx, principal.Principal{UID: 0, Name: "root"})
	key := h.owner.Public().Text()
	asked := 0
	for _, name := range namesNobodyHas() {
		for what, ask := range map[string]func() error{
			"an agent to open for": func() error {
				_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: name, To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute})
				return err
			},
			"a recipient": func() error {
				_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: name, Specs: []string{"test.mark"}, TTL: time.Minute})
				return err
			},
			"a verb to share": func() error {
				_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{name}, TTL: time.Minute})
				return err
			},
			"a verb to approve": func() error {
				_, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, Approve: []string{name}, TTL: time.Minute})
				return err
			},
			"an agent's surface": func() error { _, err := h.Verbs(h.ctx, control.VerbsRequest{Agent: name}); return err },
			"a verb to call": func() error {
				_, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: name}, io.Discard, io.Discard)
				return err
			},
			"a verb to explain": func() error {
				_, err := h.Explain(h.ctx, control.ExplainRequest{Agent: "you", Verb: name})
				return err
			},
			"a session to extend": func() error {
				_, err := h.ExtendShare(h.ctx, control.ExtendRequest{ID: name, TTL: time.Minute})
				return err
			},
			"a session to confirm": func() error { return h.ConfirmShare(h.ctx, control.ConfirmRequest{ID: name, Words: name}) },
			"a session to watch": func() error {
				return h.Watch(h.ctx, control.WatchRequest{ID: name}, func(control.Event) error { return nil })
			},
			"a call to answer":      func() error { return h.AnswerCall(h.ctx, control.AnswerRequest{Call: name, Approve: true}) },
			"a recipient to add":    func() error { return h.AddRecipient(root, control.AddRecipientRequest{Alias: name, Key: key}) },
			"a key to add":          func() error { return h.AddRecipient(root, control.AddRecipientRequest{Alias: "new", Key: name}) },
			"a recipient to remove": func() error { return h.RemoveRecipient(root, control.RemoveRecipientRequest{Alias: name}) },
		} {
			asked++
			err := ask()
			if code := term.CodeOf(err); err == nil || code == control.Internal {
				t.Errorf("%.40q as %s: %v (%d)", name, what, err, code)
			}
		}
	}
	if _, err := h.RevokeShare(h.ctx, control.RevokeRequest{ID: "../x"}); term.CodeOf(err) != control.NotFound {
		t.Errorf("a session to revoke: %v", err)
	}
	if after := tree(t, h.dir); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("the folder holds\n%s", strings.Join(after, "\n"))
	}
	t.Logf("%d questions", asked)
}
