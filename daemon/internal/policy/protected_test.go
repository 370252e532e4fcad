package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// folder is a folder that only the tests' user may write, below one that is
// sticky, as most temporary folders are.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "policy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func write(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte("content"), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAProtectedFileIsRead(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o600, 0o400, 0o755} {
		path := write(t, filepath.Join(folder(t), "file"), mode)
		if data, err := ReadProtected(path, os.Geteuid()); err != nil || string(data) != "content" {
			t.Errorf("mode %o: %q, %v", mode, data, err)
		}
	}
	if _, err := ReadProtected(filepath.Join(folder(t), "none"), os.Geteuid()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestAFileThatOthersCouldHaveWrittenIsNotBelieved(t *testing.T) {
	uid := os.Geteuid()
	for name, c := range map[string]struct {
		make func(dir string) string
		want string
	}{
		"writable by the group":  {func(dir string) string { return write(t, filepath.Join(dir, "f"), 0o664) }, "chmod go-w"},
		"writable by everybody":  {func(dir string) string { return write(t, filepath.Join(dir, "f"), 0o646) }, "chmod go-w"},
		"a symbolic link":        {func(dir string) string { return link(t, write(t, filepath.Join(dir, "f"), 0o644)) }, "symbolic link"},
		"a link to nothing":      {func(dir string) string { return link(t, filepath.Join(dir, "none")) }, "symbolic link"},
		"a file of two names":    {func(dir string) string { return second(t, write(t, filepath.Join(dir, "f"), 0o644)) }, "hard links"},
		"a folder":               {func(dir string) string { return dir }, "regular"},
		"a pipe":                 {func(dir string) string { return pipe(t, filepath.Join(dir, "p")) }, "regular"},
		"a device":               {func(string) string { return "/dev/null" }, ""},
		"in an open folder":      {func(dir string) string { return in(t, dir, 0o777) }, "folder"},
		"in a group's folder":    {func(dir string) string { return in(t, dir, 0o775) }, "folder"},
		"larger than any policy": {func(dir string) string { return large(t, filepath.Join(dir, "f")) }, "larger"},
	} {
		path := c.make(folder(t))
		_, err := ReadProtected(path, uid)
		if _, ok := errors.AsType[*ProtectionError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAStickyFolderOfRootsPasses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make one")
	}
	dir := folder(t)
	path := write(t, filepath.Join(dir, "f"), 0o644)
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProtected(path, 0); err != nil {
		t.Error(err)
	}
	if err := os.Chown(dir, 1234, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProtected(path, 0); err == nil {
		t.Error("a folder of somebody else's passes")
	}
}

func TestAFileOfSomebodyElsesIsNotBelieved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file away")
	}
	path := write(t, filepath.Join(folder(t), "f"), 0o644)
	if err := os.Chown(path, 1234, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProtected(path, 0); err == nil || !strings.Contains(err.Error(), "chown root") {
		t.Errorf("%v", err)
	}
	// The daemon's own user may own it, below folders that are its own or root's.
	if _, err := ReadProtected(path, 1234); err != nil {
		t.Errorf("%v", err)
	}
}

func link(t *testing.T, to string) string {
	t.Helper()
	path := to + "-link"
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// second gives the file a second name, and returns that.
func second(t *testing.T, path string) string {
	t.Helper()
	if err := os.Link(path, path+"-second"); err != nil {
		t.Fatal(err)
	}
	return path + "-second"
}

func pipe(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func in(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	path := write(t, filepath.Join(dir, "f"), 0o644)
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func large(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
