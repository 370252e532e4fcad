package audit

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
)

// A6: 64 at once; numbers without a gap, a valid chain, nobody's entry lost.
func TestConcurrentAppendsKeepTheChain(t *testing.T) {
	const writers, each = 64, 10
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	var mu sync.Mutex
	var entries []Entry
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range each {
				entry, err := l.Append(numbered(i))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				entries = append(entries, entry)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	wantInFile(t, path, entries)
	report, err := Verify(bytes.NewReader(mustRead(t, path)))
	if err != nil || report.Entries != writers*each || report.Head != l.Head() {
		t.Errorf("got %+v, %v; want %d entries", report, err, writers*each)
	}
}

// gated is a file whose syncs wait to be let through.
type gated struct {
	File
	gate  chan error
	syncs int
}

func (g *gated) Sync() error {
	g.syncs++
	if err := <-g.gate; err != nil {
		return err
	}
	return g.File.Sync()
}

// openGated opens a log whose file is gated from here on.
func openGated(t *testing.T, path string) (*Log, *gated) {
	t.Helper()
	g := &gated{gate: make(chan error, 1)}
	cfg := testConfig()
	cfg.Open = func(path string) (File, error) {
		file, err := OpenFile(path)
		g.File = file
		return g, err
	}
	g.gate <- nil // Open's own sync
	l, _ := mustOpen(t, path, cfg)
	g.syncs = 0
	return l, g
}

func TestOneSyncCoversAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, file := openGated(t, newPath(t))
		returned := make(chan error, 64)
		go func() { _, err := l.Append(numbered(0)); returned <- err }()
		synctest.Wait() // the first is in its sync
		for i := range 63 {
			go func() { _, err := l.Append(numbered(i)); returned <- err }()
		}
		synctest.Wait() // and 63 wait behind it
		if len(returned) > 0 {
			t.Error("an Append returned before any sync had")
		}
		file.gate <- nil
		synctest.Wait()
		if len(returned) != 1 {
			t.Errorf("%d returned after the first sync, which covered one", len(returned))
		}
		file.gate <- nil
		synctest.Wait()
		if len(returned) != 64 || file.syncs != 2 {
			t.Errorf("%d returned after %d syncs", len(returned), file.syncs)
		}
		for range len(returned) {
			if err := <-returned; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAFailedSyncFailsAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, file := openGated(t, newPath(t))
		returned := make(chan error, 64)
		for i := range 64 {
			go func() { _, err := l.Append(numbered(i)); returned <- err }()
		}
		synctest.Wait()
		file.gate <- syscall.EIO
		synctest.Wait()
		for range 64 {
			wantError(t, <-returned, syscall.EIO)
		}
		if file.syncs != 1 {
			t.Errorf("%d syncs: something was tried again after the failure", file.syncs)
		}
	})
}

func TestCloseFailsThoseThatOnlyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, file := openGated(t, newPath(t))
		first := make(chan error, 1)
		go func() { _, err := l.Append(numbered(0)); first <- err }()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }()
		synctest.Wait()
		later := make(chan error, 1)
		go func() { _, err := l.Append(numbered(1)); later <- err }()
		synctest.Wait()
		file.gate <- nil
		if err := errors.Join(<-first, <-closed); err != nil {
			t.Error(err)
		}
		wantError(t, <-later, ErrClosed)
	})
}

func TestTailGivesTheLastEntries(t *testing.T) {
	l, _ := mustOpen(t, newPath(t), testConfig())
	for i := range 5 {
		mustAppend(t, l, numbered(i))
	}
	for n, want := range map[int][]uint64{
		0: nil, 1: {5}, 3: {3, 4, 5}, 5: {1, 2, 3, 4, 5}, 9: {1, 2, 3, 4, 5}, -1: {1, 2, 3, 4, 5},
	} {
		var got []uint64
		for record, err := range l.Tail(t.Context(), n, false) {
			must(t, err)
			got = append(got, record.Seq)
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("the last %d are %v, want %v", n, got, want)
		}
	}
}

func TestTailFollowsUntilItIsToldToStop(t *testing.T) {
	stops := map[string]func(cancel func(), l *Log){
		"by its context": func(cancel func(), _ *Log) { cancel() },
		"by Close":       func(_ func(), l *Log) { l.Close() },
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			synctest.Test(t, func(t *testing.T) {
				l, _ := mustOpen(t, path, testConfig())
				mustAppend(t, l, numbered(0))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				seen := make(chan uint64, 9)
				go func() {
					defer close(seen)
					for record, err := range l.Tail(ctx, 1, true) {
						if err != nil {
							t.Error(err)
						}
						seen <- record.Seq
					}
				}()
				synctest.Wait()
				for i := uint64(2); i < 5; i++ {
					mustAppend(t, l, numbered(1))
					synctest.Wait()
					if len(seen) != int(i) {
						t.Errorf("%d seen of %d", len(seen), i)
					}
				}
				stop(cancel, l)
				synctest.Wait()
				for want := uint64(1); want < 5; want++ {
					if got := <-seen; got != want {
						t.Errorf("got %d, want %d", got, want)
					}
				}
				if _, more := <-seen; more {
					t.Error("it goes on")
				}
			})
		})
	}
}

// A follower is never shown an entry that may yet be lost.
func TestTailWaitsForTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, file := openGated(t, newPath(t))
		go l.Append(numbered(0))
		synctest.Wait()
		for record := range l.Tail(t.Context(), -1, false) {
			t.Errorf("entry %d is shown before it is durable", record.Seq)
		}
		file.gate <- nil
		synctest.Wait()
		var n int
		for range l.Tail(t.Context(), -1, false) {
			n++
		}
		if n != 1 {
			t.Errorf("%d entries after the sync", n)
		}
	})
}
