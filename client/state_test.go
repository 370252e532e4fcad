package client

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

func TestABearersClaimIsOnTheDiskBeforeItIsMade(t *testing.T) {
	d := newScriptedDaemon(t, false)
	dir := t.TempDir()
	var first []byte
	for range 2 {
		s, err := Connect(t.Context(), Config{
			Handle: d.handle, StateDir: dir, Rand: rand.Reader,
			Join: d.join(func(c *channel.Conn) {
				files, _ := filepath.Glob(filepath.Join(dir, "claims", "*"))
				if len(files) != 1 {
					t.Errorf("at READY there are %d claims on the disk", len(files))
				}
				d.welcome(c)
				drain(c)
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if first != nil && !bytes.Equal(first, d.subject) {
			t.Error("the second connection claims with another key")
		}
		first = bytes.Clone(d.subject)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "claims", "*"))
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the claim's mode is %v (%v)", info.Mode(), err)
	}
}

func TestAClaimThatCannotBeKeptIsNotMade(t *testing.T) {
	d := newScriptedDaemon(t, false)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "claims"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Connect(t.Context(), Config{
		Handle: d.handle, StateDir: dir, Rand: rand.Reader,
		Join: d.join(func(c *channel.Conn) { t.Error("FINISHED was sent") }),
	})
	if err == nil {
		t.Error("the session was claimed")
	}
}

func TestClaimFiles(t *testing.T) {
	dir := t.TempDir()
	seed := bytes.Repeat([]byte{7}, 32)
	now := time.Now()
	old, current := filepath.Join(dir, "old"), filepath.Join(dir, "current")
	for path, limit := range map[string]time.Time{old: now.Add(-2 * time.Hour), current: now.Add(-30 * time.Minute)} {
		if err := writeClaim(path, limit, seed); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeClaim(current, now, seed); !errors.Is(err, errClaimed) {
		t.Errorf("a second claim: %v", err)
	}
	dropOldClaims(dir, now)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Error("a claim that is long over is kept")
	}
	got, _, err := readClaim(current)
	if err != nil || !bytes.Equal(got, seed) {
		t.Errorf("%x, %v", got, err)
	}
	for name, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(current, 0o644) },
		"cut": func() error {
			return errors.Join(os.Chmod(current, 0o600), os.WriteFile(current, []byte(wire.EncodeText(claimPrefix, seed)), 0o600))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readClaim(current); err == nil {
			t.Errorf("a claim file that is %s is used", name)
		}
	}
}

func TestKnownDaemonsAreNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "known")
	a, b := [32]byte{1}, [32]byte{2}
	known, err := OpenKnownDaemons(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(known.Remember("acme", a), known.Remember("other", b), known.Remember("acme", a)); err != nil {
		t.Fatal(err)
	}
	if err := known.Remember("acme", b); !errors.Is(err, ErrChanged) {
		t.Errorf("another fingerprint under a known name: %v", err)
	}
	again, err := OpenKnownDaemons(path)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := again.Check("acme", a); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := again.Check("acme", b); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if ok, err := again.Check("nobody", a); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if name, ok := again.Name(b); name != "other" || !ok {
		t.Errorf("%q, %v", name, ok)
	}
	for _, name := range []string{"", "a b", "a\n", "é", strings.Repeat("x", 65), "a/b"} {
		if known.Remember(name, [32]byte{9}) == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, text := range []string{"acme", "acme 00", "acme zz", "a b c", "\x1b[2J " + strings.Repeat("0", 64)} {
		if err := os.WriteFile(path, []byte("# mine\n\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKnownDaemons(path); err == nil || !strings.Contains(err.Error(), ":3:") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestABearerHandleNeedsNoKey(t *testing.T) {
	cfg := Config{Handle: handle.Handle{}}
	if _, err := cfg.keys(); err != nil {
		t.Error(err)
	}
}
