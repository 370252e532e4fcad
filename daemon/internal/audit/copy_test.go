package audit

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func copying(t *testing.T, path string, rotate int64) (Config, *FileCopy) {
	t.Helper()
	c, err := OpenFileCopy(path, rotate)
	must(t, err)
	cfg := testConfig()
	cfg.Copy = c
	return cfg, c
}

// whole is a log or a copy, across its files.
func whole(t *testing.T, path string) []byte {
	t.Helper()
	files, err := segments(path)
	must(t, err)
	var all []byte
	for _, f := range files {
		all = append(all, mustRead(t, f.path)...)
	}
	return all
}

func TestARequiredCopyHasEveryEntryAcrossRestartsAndRotations(t *testing.T) {
	path, second := newPath(t), newPath(t)
	for range 3 {
		cfg, _ := copying(t, second, 4<<10)
		cfg.Rotate = 5 << 10
		l, _ := mustOpen(t, path, cfg)
		for i := range 30 {
			mustAppend(t, l, numbered(i))
			if seq, last := l.progress().seq, cfg.Copy.Last(); last.Seq != seq || last.Hash != l.Head() {
				t.Fatalf("entry %d is acknowledged, and the copy ends with %d", seq, last.Seq)
			}
		}
		must(t, l.Close())
	}
	if !bytes.Equal(whole(t, path), whole(t, second)) {
		t.Error("the copy is another log")
	}
	// What it missed, and what a crash tore in it, it is given when it is opened.
	must(t, os.WriteFile(second, mustRead(t, second)[:100], 0o600))
	cfg, _ := copying(t, second, 4<<10)
	l, _ := mustOpen(t, path, cfg)
	mustAppend(t, l, numbered(0))
	if !bytes.Equal(whole(t, path), whole(t, second)) {
		t.Error("the copy was not completed")
	}
	must(t, l.Close())
}

// failingCopy fails at its k-th write.
type failingCopy struct {
	mu     sync.Mutex
	k      int
	writes int
	lines  []byte
}

func (c *failingCopy) Last() Entry  { return Entry{} }
func (c *failingCopy) Close() error { return nil }
func (c *failingCopy) Write(lines []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes++; c.writes == c.k {
		return syscall.EIO
	}
	c.lines = append(c.lines, lines...)
	return nil
}

func (c *failingCopy) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

func TestARequiredCopyThatFailsStopsTheLog(t *testing.T) {
	for k := 1; k <= 5; k++ {
		path := newPath(t)
		cfg := testConfig()
		second := &failingCopy{k: k}
		cfg.Copy = second
		l, _ := mustOpen(t, path, cfg)
		for i := 1; i <= 6; i++ {
			if _, err := l.Append(numbered(i)); (err == nil) != (i < k) {
				t.Fatalf("append %d returned %v, and write %d of the copy fails", i, err, k)
			} else if i > k {
				wantError(t, err, ErrFailed)
			}
		}
		if n := bytes.Count(mustRead(t, path), []byte("\n")); n != k {
			t.Errorf("%d lines in the log, and write %d of the copy failed", n, k)
		}
	}
}

func TestACopyThatDisagreesIsNotCarriedOn(t *testing.T) {
	path, second := newPath(t), newPath(t)
	cfg, _ := copying(t, second, 0)
	l, _ := mustOpen(t, path, cfg)
	for i := range 10 {
		mustAppend(t, l, numbered(i))
	}
	must(t, l.Close())
	log := mustRead(t, path)
	lines := bytes.SplitAfter(log, []byte("\n"))
	for name, changed := range map[string][]byte{
		"cut off":         bytes.Join(lines[:6], nil),
		"gone":            nil,
		"another history": bytes.ReplaceAll(log, []byte("ssh."), []byte("sxh.")),
	} {
		must(t, os.WriteFile(path, changed, 0o600))
		cfg, c := copying(t, second, 0)
		l, _, err := Open(path, cfg)
		if err == nil {
			t.Errorf("%s: it is carried on", name)
			must(t, l.Close())
			continue
		}
		if _, bad := errors.AsType[*BadEntry](err); !bad {
			wantError(t, err, ErrCopyDiffers)
		}
		must(t, c.Close())
	}
}

func TestACopyThatIsNotRequiredFollowsAndMissesNothing(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	second := &failingCopy{}
	var told []error
	var following sync.WaitGroup
	following.Go(func() { l.Follow(t.Context(), second, func(err error) { told = append(told, err) }) })
	for second.size() == 0 { // it begins with what is logged after it has
		mustAppend(t, l, numbered(0))
	}
	for i := range 50 {
		mustAppend(t, l, numbered(i))
	}
	must(t, l.Close())
	following.Wait()
	if log := mustRead(t, path); len(told) > 0 || !bytes.HasSuffix(log, second.lines) || bytes.Count(second.lines, []byte("\n")) <= 50 {
		t.Errorf("it has %d of %d bytes, and told %v", len(second.lines), len(log), told)
	}
}

func TestACopyThatFailsHoldsNothingUpAndIsToldOf(t *testing.T) {
	l, _ := mustOpen(t, newPath(t), testConfig())
	second := &failingCopy{k: 1}
	told := make(chan error, 8)
	var following sync.WaitGroup
	began := l.progress().seq
	following.Go(func() { l.Follow(t.Context(), second, func(err error) { told <- err }) })
	for err := error(nil); err == nil; { // until it has begun to follow
		mustAppend(t, l, numbered(0))
		select {
		case err = <-told:
			wantError(t, err, syscall.EIO)
		default:
		}
	}
	if l.Err() != nil || l.progress().seq <= began {
		t.Errorf("the log stands still: %v", l.Err())
	}
	must(t, l.Close())
	following.Wait()
}

func TestTheSystemLogGetsEveryLineAndTheHashOfALongOne(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	path := newPath(t)
	cfg := testConfig()
	cfg.Copy = NewSyslogCopy(socket)
	l, _ := mustOpen(t, path, cfg)
	mustAppend(t, l, numbered(0))
	long := numbered(1)
	long.Request = bytes.Repeat([]byte{7}, 9000)
	entry := mustAppend(t, l, long)
	lines := bytes.SplitAfter(mustRead(t, path), []byte("\n"))
	read := func() string {
		buf := make([]byte, 1<<16)
		must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, err := conn.Read(buf)
		must(t, err)
		text := string(buf[:n])
		head, line, ok := strings.Cut(text, "]: ")
		if !ok || !strings.HasPrefix(head, "<85>openscope[") || len(text) > maxSyslog+100 {
			t.Errorf("the system log gets %.60q, %d bytes", text, n)
		}
		return line
	}
	if got := read(); got+"\n" != string(lines[0]) {
		t.Errorf("got %q", got)
	}
	if got := read(); !strings.HasPrefix(got, `{"seq":2,"kind":"call"`) || !strings.Contains(got, string(lines[1][len(lines[1])-67:len(lines[1])-3])) {
		t.Errorf("got %q for entry %d", got, entry.Seq)
	}
	// Without anybody to take it the entry is none.
	must(t, conn.Close())
	must(t, os.Remove(socket))
	if _, err := l.Append(numbered(2)); err == nil {
		t.Error("an entry is acknowledged that the required system log does not have")
	}
}
