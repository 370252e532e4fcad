package relay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openscope/wire"
)

// TokenFile is the deployment tokens this relay takes, as a file of their
// public halves. Whoever may write it decides who may stand here; nobody can
// learn a token from it. Any process may change it; the relay notices.
type TokenFile struct {
	path string

	mu      sync.Mutex // guards what is below
	looked  time.Time  // when Lookup last looked at the file
	read    fileState
	entries []TokenEntry
	byID    map[wire.TokenID]TokenEntry
}

// fileState tells one version of the file from the next.
type fileState struct {
	modified time.Time
	size     int64
	inode    uint64
}

// OpenTokenFile reads the file; a missing one is empty.
func OpenTokenFile(path string) (*TokenFile, error) {
	f := &TokenFile{path: path}
	return f, f.refresh()
}

// lookAgain is how long a token that was in the file is taken to be there still: a
// relay asks for thousands at once.
const lookAgain = 20 * time.Millisecond

// Lookup implements Tokens. A file that cannot be read takes nobody.
func (f *TokenFile) Lookup(id wire.TokenID) (Deployment, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.byID[id]
	now := time.Now()
	if !ok || now.Sub(f.looked) >= lookAgain {
		f.looked = time.Time{} // until it has been read well
		if err := f.refresh(); err != nil {
			return Deployment{}, false
		}
		f.looked = now
		if e, ok = f.byID[id]; !ok {
			return Deployment{}, false
		}
	}
	return e.Deployment(now)
}

// List returns the tokens by name.
func (f *TokenFile) List() ([]TokenEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh()
	return slices.Clone(f.entries), err
}

// Add draws a token, keeps its public half under the name, and returns it: the
// only time it is seen.
func (f *TokenFile) Add(name string, rand io.Reader) (wire.Token, error) {
	return f.AddLimited(TokenEntry{Name: name}, rand)
}

// AddLimited is Add with the expiry and the limits of the entry, whose other
// fields it sets.
func (f *TokenFile) AddLimited(e TokenEntry, rand io.Reader) (wire.Token, error) {
	token, e, err := NewTokenEntry(e, rand, time.Now())
	if err != nil {
		return wire.Token{}, err
	}
	err = f.change(func(entries []TokenEntry) ([]TokenEntry, error) {
		if slices.ContainsFunc(entries, func(old TokenEntry) bool { return old.Name == e.Name }) {
			return nil, ErrTokenExists
		}
		return append(slices.Clone(entries), e), nil
	})
	return token, err
}

// Revoke drops a token; a running relay ends its connections.
func (f *TokenFile) Revoke(name string) error {
	return f.change(func(entries []TokenEntry) ([]TokenEntry, error) {
		left := slices.DeleteFunc(slices.Clone(entries), func(e TokenEntry) bool { return e.Name == name })
		if len(left) == len(entries) {
			return nil, ErrNoToken
		}
		return left, nil
	})
}

// change edits the file under a lock that other processes see, and replaces it
// whole.
func (f *TokenFile) change(edit func([]TokenEntry) ([]TokenEntry, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	lock, err := openLock(f.path + ".lock")
	if err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	if err := f.refresh(); err != nil {
		return err
	}
	entries, err := edit(f.entries)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b TokenEntry) int { return cmp.Compare(a.Name, b.Name) })
	text, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	if err := replace(f.path, append(text, '\n')); err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	return f.refresh()
}

func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tokens-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, giveToOwner(tmp), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder has a file's new name outlive a crash: a token that was revoked must
// not come back.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// openLock opens the lock, or makes it. Only a file that was made here is given
// away: root must not hand the folder's owner something that a link leads to.
func openLock(path string) (*os.File, error) {
	for {
		lock, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err == nil {
			return lock, giveToOwner(lock)
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		lock, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return lock, err
		}
	}
}

// giveToOwner lets the relay read what root writes for it: a new file of root's
// becomes that of the folder's owner.
func giveToOwner(file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Lstat(filepath.Dir(file.Name()))
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return file.Chown(int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// refresh reads the file again if it is another than was read.
func (f *TokenFile) refresh() error {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.read, f.entries, f.byID = fileState{}, nil, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the tokens: %w", err)
	}
	now := stateOf(info)
	if now == f.read {
		return nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("reading the tokens: %w", err)
	}
	var entries []TokenEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return fmt.Errorf("reading the tokens: %s: %w", f.path, err)
	}
	byID := make(map[wire.TokenID]TokenEntry, len(entries))
	for _, e := range entries {
		id, err := e.ID()
		if err != nil {
			return fmt.Errorf("reading the tokens: %s: %w", f.path, err)
		}
		byID[id] = e
	}
	f.read, f.entries, f.byID = now, entries, byID
	return nil
}
