package relay_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"openscope/relay"
	"openscope/wire"
)

func openTokens(t *testing.T, path string) *relay.TokenFile {
	t.Helper()
	f, err := relay.OpenTokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func names(t *testing.T, f *relay.TokenFile) []string {
	t.Helper()
	entries, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name)
	}
	return all
}

func knows(f *relay.TokenFile, token wire.Token) bool {
	deployment, ok := f.Lookup(token.ID())
	return ok && deployment.Public.Equal(token.Public())
}

func TestAChangeByAnotherIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testAChangeByAnotherIsNoticed)
}

func testAChangeByAnotherIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "tokens.json")
	running, command := openTokens(t, path), openTokens(t, path)

	second, err := command.Add("second", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !knows(running, second) {
		t.Fatal("an added token is not known")
	}
	first, err := command.Add("First-1_a.b", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, running); !slices.Equal(got, []string{"First-1_a.b", "second"}) {
		t.Errorf("the tokens are %q", got)
	}
	if err := command.Revoke("second"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(relay.LookAgain) // of the bubble's clock
	if knows(running, second) || !knows(running, first) {
		t.Error("the revoked token is known, or the other is not")
	}
	if got := names(t, running); !slices.Equal(got, []string{"First-1_a.b"}) {
		t.Errorf("the tokens are %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(relay.LookAgain) // of the bubble's clock
	if knows(running, first) {
		t.Error("without a file, a token is known")
	}
}

func TestATokenOfTheSameNameIsAnother(t *testing.T) {
	t.Parallel()
	f := openTokens(t, filepath.Join(t.TempDir(), "tokens.json"))
	first, err := f.Add("name", rand.Reader)
	if err := errors.Join(err, f.Revoke("name")); err != nil {
		t.Fatal(err)
	}
	second, err := f.Add("name", rand.Reader)
	if err != nil || knows(f, first) || !knows(f, second) {
		t.Errorf("the revoked token came back, or the new one did not: %v", err)
	}
}

func TestNamesOfTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.json")
	f := openTokens(t, path)
	if _, err := f.Add("taken", rand.Reader); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"taken": relay.ErrTokenExists, "": relay.ErrTokenName, "a b": relay.ErrTokenName, "a\n": relay.ErrTokenName, "a/b": relay.ErrTokenName,
		"é": relay.ErrTokenName, "\x1b[2J": relay.ErrTokenName, strings.Repeat("a", 65): relay.ErrTokenName,
	} {
		if token, err := f.Add(name, rand.Reader); !errors.Is(err, want) || knows(f, token) {
			t.Errorf("adding %q: %v", name, err)
		}
	}
	if err := f.Revoke("Taken"); !errors.Is(err, relay.ErrNoToken) {
		t.Errorf("revoking what is not there: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("a refusal changed the file to %s, %v", after, err)
	}
	if _, err := f.Add(strings.Repeat("a", 64), rand.Reader); err != nil {
		t.Errorf("64 letters: %v", err)
	}
	if _, err := f.Add("unlucky", strings.NewReader("")); err == nil || slices.Contains(names(t, f), "unlucky") {
		t.Errorf("without randomness: %v", err)
	}
}

func TestTheFileTellsNobodyAToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.json")
	token, err := openTokens(t, path).Add("name", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var entries []map[string]string
	if err := json.Unmarshal(content, &entries); err != nil || len(entries) != 1 || len(entries[0]) != 3 {
		t.Errorf("%s: %v", content, err)
	}
	if strings.Contains(string(content), token.Text()[4:]) {
		t.Errorf("the file holds the token: %s", content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
}

func TestACorruptFileTakesNobody(t *testing.T) {
	t.Parallel()
	for name, corrupt := range map[string]func(whole string) string{
		"empty":                 func(string) string { return "" },
		"cut short":             func(whole string) string { return whole[:len(whole)/2] },
		"something behind":      func(whole string) string { return whole + "x" },
		"not a list":            func(string) string { return `{"name":"a"}` },
		"a key that is none":    func(whole string) string { return strings.Replace(whole, `"public": "`, `"public": "!`, 1) },
		"a key that is short":   func(whole string) string { return strings.Replace(whole, "]", `,{"name":"b","public":"AAAA"}]`, 1) },
		"an entry without keys": func(whole string) string { return strings.Replace(whole, "]", `,{}]`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { corruptTakesNobody(t, corrupt) })
		})
	}
}

func corruptTakesNobody(t *testing.T, corrupt func(whole string) string) {
	path := filepath.Join(t.TempDir(), "tokens.json")
	f := openTokens(t, path)
	token, err := f.Add("first", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := corrupt(string(whole))
	if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(relay.LookAgain) // of the bubble's clock
	for range 2 {               // and does not remember that it took somebody
		if knows(f, token) {
			t.Error("somebody is taken")
		}
	}
	if _, err := f.List(); err == nil {
		t.Error("it can be listed")
	}
	if _, err := relay.OpenTokenFile(path); err == nil {
		t.Error("it can be opened")
	}
	_, addErr := f.Add("second", rand.Reader)
	if addErr == nil || f.Revoke("first") == nil {
		t.Error("it can be changed")
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != torn {
		t.Errorf("what was there is overwritten with %s, %v", now, err)
	}
	if err := os.WriteFile(path, append(whole, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if !knows(f, token) {
		t.Error("mended, it takes nobody")
	}
}

func TestNoChangeIsLostToAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.json")
	var changing sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		f := openTokens(t, path)
		changing.Go(func() {
			_, err := f.Add(name, rand.Reader)
			_, again := f.Add(name+"-for-a-while", rand.Reader)
			if err := errors.Join(err, again, f.Revoke(name+"-for-a-while")); err != nil {
				t.Error(err)
			}
		})
	}
	changing.Wait()
	if got := names(t, openTokens(t, path)); strings.Join(got, "") != "abcdefgh" {
		t.Errorf("the tokens are %q", got)
	}
}

func TestTokensThatRootWritesAreTheRelaysToRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to write for another user")
	}
	t.Parallel()
	const relayUser = 1234
	dir := t.TempDir()
	if err := os.Chown(dir, relayUser, relayUser); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokens")
	if _, err := openTokens(t, path).Add("acme", rand.Reader); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != relayUser || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: of user %d, mode %o", name, owner, info.Mode())
		}
	}
}

// The relay's user owns the folder, and can put links there.
func TestRootHandsNothingOverThatALinkLeadsTo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which has something to hand over")
	}
	t.Parallel()
	dir := t.TempDir()
	precious := filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Chown(dir, 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokens")
	if err := os.Symlink(precious, path+".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := openTokens(t, path).Add("acme", rand.Reader); err == nil {
		t.Error("a link stands where the lock should, and is followed")
	}
	info, err := os.Stat(precious)
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("what the link leads to: %v, %v", info.Sys(), err)
	}
}
