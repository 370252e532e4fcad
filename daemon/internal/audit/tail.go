package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// Tail yields the last n records that are on the disk, all of them where n is
// negative. With follow it then waits and yields each new one, until ctx ends
// or the log is closed; neither is an error.
func (l *Log) Tail(ctx context.Context, n int, follow bool) iter.Seq2[Record, error] {
	from := uint64(1)
	if n >= 0 {
		now := l.progress()
		from = now.seq + 1 - min(now.seq, uint64(n))
	}
	return l.tailFrom(ctx, from, follow)
}

// tailFrom is Tail from an entry on. What was on the disk when the log was
// closed is yielded too.
func (l *Log) tailFrom(ctx context.Context, from uint64, follow bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		t := tailing{log: l, from: from}
		defer t.close()
		now := l.progress()
		for closed := false; ; {
			for record, err := range t.upTo(now) {
				if ctx.Err() != nil || !yield(record, err) || err != nil {
					return
				}
			}
			if !follow || closed {
				return
			}
			select {
			case <-now.grown:
			case <-ctx.Done():
				return
			case <-l.closed:
				closed = true
			}
			now = l.progress()
		}
	}
}

// progress is how far the log has got.
type progress struct {
	seq   uint64        // last entry that may be shown
	grown chan struct{} // closed when it is more
}

func (l *Log) progress() progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return progress{seq: l.shownSeq, grown: l.grown}
}

// tailing reads a log across its files, each by a descriptor of its own: what
// is renamed under it stays what it reads.
type tailing struct {
	log  *Log
	from uint64 // next entry to yield
	file *os.File
	at   int64
}

// upTo yields what there is, up to an entry that is on the disk.
func (t *tailing) upTo(now progress) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for t.from <= now.seq {
			before := t.from
			if err := t.openFor(); err != nil {
				yield(Record{}, fmt.Errorf("reading the log: %w", err))
				return
			}
			more := t.readFile(now.seq, yield)
			if !more {
				return
			}
			if t.from == before {
				yield(Record{}, fmt.Errorf("reading the log: entry %d is not in any of its files", t.from))
				return
			}
		}
	}
}

// openFor opens the file that has the next entry, unless it is open.
func (t *tailing) openFor() error {
	if t.file != nil {
		return nil
	}
	t.log.mu.Lock() // no rotation meanwhile
	defer t.log.mu.Unlock()
	if t.from >= t.log.fileFirst {
		return t.open(t.log.path)
	}
	files, err := segments(t.log.path)
	if err != nil {
		return err
	}
	for i := len(files) - 1; i >= 0; i-- {
		if files[i].first != 0 && files[i].first <= t.from {
			return t.open(files[i].path)
		}
	}
	return errors.New("the file with its beginning is gone")
}

func (t *tailing) open(path string) (err error) {
	t.file, err = os.Open(path)
	t.at = 0
	return err
}

// readFile yields from the open file, up to an entry. At the file's end it is
// closed, for the next to be opened.
func (t *tailing) readFile(last uint64, yield func(Record, error) bool) (more bool) {
	for record, err := range Read(io.NewSectionReader(t.file, t.at, 1<<62)) {
		if errors.Is(err, ErrTorn) {
			break // being written; what is on the disk has been read
		}
		if err != nil {
			yield(Record{}, err)
			return false
		}
		t.at += int64(len(record.Line())) + 1
		if record.Seq < t.from {
			continue
		}
		t.from = record.Seq + 1
		if !yield(record, nil) {
			return false
		}
		if t.from > last {
			return true
		}
	}
	t.close()
	return true
}

func (t *tailing) close() {
	if t.file != nil {
		_ = t.file.Close() // it was only read
		t.file = nil
	}
}
