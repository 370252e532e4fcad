package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
)

// faulty is a file whose k-th write or sync, counted from 1 after arm, goes
// wrong. It knows which of its bytes a sync has covered.
type faulty struct {
	File
	mu            sync.Mutex
	armed         bool
	failWrite     int // which write; 0 for none
	failSync      int
	how           func(f File, b []byte) (int, error)
	writes, syncs int
	written       int64
	synced        int64
}

func (f *faulty) arm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.writes, f.syncs = true, 0, 0
}

func (f *faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.armed && f.writes == f.failWrite {
		n, err := f.how(f.File, b)
		f.written += int64(n)
		return n, err
	}
	n, err := f.File.Write(b)
	f.written += int64(n)
	return n, err
}

func (f *faulty) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	if f.armed && f.syncs == f.failSync {
		return syscall.EIO
	}
	f.synced = f.written
	return f.File.Sync()
}

func (f *faulty) open(path string) (File, error) {
	file, err := OpenFile(path)
	f.File = file
	return f, err
}

// The ways a write goes wrong. Those that return nil or part of the bytes did
// put them into the file.
var writeFaults = map[string]func(File, []byte) (int, error){
	"EIO":    func(File, []byte) (int, error) { return 0, syscall.EIO },
	"EROFS":  func(File, []byte) (int, error) { return 0, syscall.EROFS },
	"EDQUOT": func(File, []byte) (int, error) { return 0, syscall.EDQUOT },
	"ENOSPC after half": func(f File, b []byte) (int, error) {
		n, err := f.Write(b[:len(b)/2])
		return n, errors.Join(syscall.ENOSPC, err)
	},
	"ENOSPC after all but the newline": func(f File, b []byte) (int, error) {
		n, err := f.Write(b[:len(b)-1])
		return n, errors.Join(syscall.ENOSPC, err)
	},
	"nothing written and no error": func(File, []byte) (int, error) { return 0, nil },
	"more than all":                func(_ File, b []byte) (int, error) { return len(b) + 1, nil },
}

const appended = 12

// A2: whatever goes wrong at the k-th write or sync, an Append that returned
// nil has its line in the file, and after the first error none returns nil.
func TestAnAppendThatReturnedIsInTheFile(t *testing.T) {
	for k := 1; k <= appended; k++ {
		for name, how := range writeFaults {
			t.Run(fmt.Sprintf("%s at write %d", name, k), func(t *testing.T) {
				checkFailsClosed(t, &faulty{failWrite: k, how: how}, k)
			})
		}
		t.Run(fmt.Sprintf("EIO at sync %d", k), func(t *testing.T) {
			checkFailsClosed(t, &faulty{failSync: k}, k)
		})
	}
}

func checkFailsClosed(t *testing.T, file *faulty, failing int) {
	path := newPath(t)
	cfg := testConfig()
	cfg.Open = file.open
	l, _ := mustOpen(t, path, cfg)
	file.arm()
	var acknowledged []Entry
	for i := range appended {
		entry, err := l.Append(numbered(i))
		if (err == nil) != (i+1 < failing) {
			t.Fatalf("append %d returned %v; number %d fails", i+1, err, failing)
		}
		if err == nil {
			acknowledged = append(acknowledged, entry)
		}
		if i+1 > failing {
			wantError(t, err, ErrFailed)
		}
	}
	if file.writes > failing {
		t.Errorf("%d writes, though number %d failed", file.writes, failing)
	}
	l.Close()
	wantInFile(t, path, acknowledged)
	// The next start carries on from whatever the failure left.
	again, _ := mustOpen(t, path, testConfig())
	mustAppend(t, again, numbered(99))
	wantInFile(t, path, acknowledged)
}

// wantInFile wants the file to verify and to have these entries.
func wantInFile(t *testing.T, path string, entries []Entry) {
	t.Helper()
	data := mustRead(t, path)
	if _, err := Verify(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	hashes := make(map[uint64][32]byte)
	for record, err := range Read(bytes.NewReader(data)) {
		if err == nil {
			hashes[record.Seq] = record.Hash
		}
	}
	for _, e := range entries {
		if hashes[e.Seq] != e.Hash {
			t.Errorf("entry %d was acknowledged and is not in the file", e.Seq)
		}
	}
}

func TestAShortWriteIsCarriedOn(t *testing.T) {
	oneByte := func(f File, b []byte) (int, error) { return f.Write(b[:1]) }
	file := &faulty{failWrite: 2, how: oneByte}
	path := newPath(t)
	cfg := testConfig()
	cfg.Open = file.open
	l, _ := mustOpen(t, path, cfg)
	file.arm()
	var entries []Entry
	for i := range 3 {
		entries = append(entries, mustAppend(t, l, numbered(i)))
	}
	if file.writes != 4 {
		t.Errorf("%d writes for three entries, one of them in two parts", file.writes)
	}
	wantInFile(t, path, entries)
}

// Durable means covered by a sync that succeeded, not merely written.
func TestAnAppendReturnsAfterTheSync(t *testing.T) {
	file := &faulty{}
	path := newPath(t)
	cfg := testConfig()
	cfg.Open = file.open
	l, _ := mustOpen(t, path, cfg)
	for i := range 20 {
		mustAppend(t, l, numbered(i))
		if size := int64(len(mustRead(t, path))); file.synced != size {
			t.Fatalf("append %d returned with %d of %d bytes synced", i+1, file.synced, size)
		}
	}
}

// A2: the file is taken away or changed while the log is open.
func TestAFileThatIsTamperedWithFailsTheLog(t *testing.T) {
	cases := map[string]func(t *testing.T, path string){
		"unlinked": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"renamed":  func(t *testing.T, path string) { must(t, os.Rename(path, path+".1")) },
		"rotated": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".1"))
			must(t, os.WriteFile(path, mustRead(t, path+".1"), 0o600))
		},
		"replaced by a link to itself": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".1"))
			must(t, os.Symlink(path+".1", path))
		},
		"truncated":  func(t *testing.T, path string) { must(t, os.Truncate(path, 10)) },
		"emptied":    func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"written to": func(t *testing.T, path string) { appendTo(t, path, "x") },
		"folder renamed": func(t *testing.T, path string) {
			dir := path[:len(path)-len("/audit.log")]
			must(t, os.Rename(dir, dir+".1"))
			t.Cleanup(func() { os.RemoveAll(dir + ".1") })
		},
	}
	for name, tamper := range cases {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			l, _ := mustOpen(t, path, testConfig())
			mustAppend(t, l, numbered(0))
			tamper(t, path)
			before := whatIsThere(path)
			if _, err := l.Append(numbered(1)); err == nil {
				t.Error("the log took another entry")
			}
			_, err := l.Append(numbered(2))
			wantError(t, err, ErrFailed)
			if whatIsThere(path) != before {
				t.Error("the log wrote into a file that is not its own any more")
			}
		})
	}
}

// whatIsThere is the content of the file at path, and of the one that was moved
// from there; nothing where there is none.
func whatIsThere(path string) string {
	here, _ := os.ReadFile(path)
	moved, _ := os.ReadFile(path + ".1")
	return string(here) + "|" + string(moved)
}

// The file goes away between the look before the write and the end of the sync.
func TestAFileThatVanishesDuringTheWriteFailsTheAppend(t *testing.T) {
	path := newPath(t)
	vanish := func(f File, b []byte) (int, error) {
		must(t, os.Remove(path))
		return f.Write(b)
	}
	file := &faulty{failWrite: 1, how: vanish}
	cfg := testConfig()
	cfg.Open = file.open
	l, _ := mustOpen(t, path, cfg)
	file.arm()
	_, err := l.Append(numbered(0))
	wantError(t, err, errGone)
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = io.WriteString(f, text)
	must(t, errors.Join(err, f.Close()))
}

// A2 on a real file system that fills up.
func TestAFullDiskFailsTheLog(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,mode=0700"); err != nil {
		t.Skipf("mounting a tmpfs of 4 KiB: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	path := dir + "/audit.log"
	l, _ := mustOpen(t, path, testConfig())
	var entries []Entry
	var err error
	for err == nil {
		var entry Entry
		if entry, err = l.Append(numbered(len(entries))); err == nil {
			entries = append(entries, entry)
		}
	}
	wantError(t, err, syscall.ENOSPC)
	if len(entries) == 0 {
		t.Error("not even one entry fitted")
	}
	_, err = l.Append(numbered(0))
	wantError(t, err, ErrFailed)
	wantInFile(t, path, entries)
}

func TestAClosedLogTakesNothing(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	mustAppend(t, l, numbered(0))
	must(t, l.Close())
	must(t, l.Close())
	_, err := l.Append(numbered(1))
	wantError(t, err, ErrClosed)
	if n := bytes.Count(mustRead(t, path), []byte("\n")); n != 1 {
		t.Errorf("the file has %d lines", n)
	}
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
