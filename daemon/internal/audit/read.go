package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// BadEntry is the first line of a log that is not what it should be.
type BadEntry struct {
	Line   int    // counted from 1
	Seq    uint64 // what the line says its number is; 0 where it cannot be read
	Reason string // ours, and plain: nothing of the line is in it
}

func (e *BadEntry) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// ErrTorn means that the last line has no newline: it was cut short by a
// crash, or is being written at this moment.
var ErrTorn = errors.New("the last line is unfinished")

// Report is what Verify found.
type Report struct {
	Entries int      // good ones, counted until the first bad one
	Torn    bool     // an unfinished last line follows them
	Head    [32]byte // hash of the last good one
}

// Verify reads a whole log and holds every line to the chain. The error is a
// *BadEntry for the first line that does not belong where it stands, or the
// reader's own. A torn last line is reported and is no error: the next Open
// sets it aside.
func Verify(r io.Reader) (Report, error) {
	var report Report
	for record, err := range Read(r) {
		if errors.Is(err, ErrTorn) {
			report.Torn = true
			return report, nil
		}
		if err != nil {
			return report, err
		}
		bad := &BadEntry{Line: report.Entries + 1, Seq: record.Seq}
		if want := uint64(bad.Line); record.Seq != want {
			bad.Reason = fmt.Sprintf("its number is %d where %d should be", record.Seq, want)
			return report, bad
		}
		if record.Prev != report.Head {
			bad.Reason = "it does not follow from the line before"
			return report, bad
		}
		report.Entries, report.Head = bad.Line, record.Hash
	}
	return report, nil
}

// Read yields the records of a log, or of a part of one that begins at a line.
// Every line is held to its own hash and form, not to the chain: that is
// Verify's. After an error nothing more is yielded; it is a *BadEntry, ErrTorn,
// or the reader's own.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := bufio.NewReaderSize(r, 16<<10)
		for number := 1; ; number++ {
			line, err := readLine(lines)
			if errors.Is(err, io.EOF) {
				return
			}
			var record Record
			if err == nil {
				record, err = parseLine(line)
			}
			if err != nil && !errors.Is(err, ErrTorn) && !isReadError(err) {
				err = &BadEntry{Line: number, Reason: err.Error()}
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

var errLong = fmt.Errorf("it is longer than %d bytes", maxLine)

// readError sets the reader's own failures apart from what a line can have.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

func isReadError(err error) bool {
	_, ok := errors.AsType[readError](err)
	return ok
}

// readLine is the next line without its newline; io.EOF after the last.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, errLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, ErrTorn
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, readError{fmt.Errorf("reading the log: %w", err)}
		}
	}
}

// Tail yields the last n records that are on the disk, all of them where n is
// negative. With follow it then waits and yields each new one, until ctx ends
// or the log is closed; neither is an error.
func (l *Log) Tail(ctx context.Context, n int, follow bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		size, grown := l.progress()
		at, err := l.startOfLast(n, size)
		if err != nil {
			yield(Record{}, fmt.Errorf("reading the log: %w", err))
			return
		}
		for {
			for record, err := range Read(io.NewSectionReader(l.file, at, size-at)) {
				if ctx.Err() != nil || !yield(record, err) || err != nil {
					return
				}
			}
			if !follow {
				return
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return
			case <-l.closed:
				return
			}
			at = size
			size, grown = l.progress()
		}
	}
}

func (l *Log) progress() (size int64, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable, l.grown
}

func (l *Log) startOfLast(n int, size int64) (int64, error) {
	switch {
	case n < 0:
		return 0, nil
	case n == 0:
		return size, nil
	}
	return scanBack(l.file, size, n+1)
}
