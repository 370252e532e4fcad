package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
)

// BadEntry is the first line of a log that is not what it should be.
type BadEntry struct {
	File   string // where it is not the only one
	Line   int    // counted from 1
	Seq    uint64 // what the line says its number is; 0 where it cannot be read
	Reason string // ours, and plain: nothing of the line is in it
}

func (e *BadEntry) Error() string {
	if e.File != "" {
		return fmt.Sprintf("%s: line %d: %s", e.File, e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// ErrTorn means that the last line has no newline: it was cut short by a
// crash, or is being written at this moment.
var ErrTorn = errors.New("the last line is unfinished")

// Report is what Verify found.
type Report struct {
	Entries int      // good ones, counted until the first bad one
	Torn    bool     // an unfinished last line follows them
	Head    [32]byte // hash of the last good one
	// Files is how many files they stand in, and Checkpoints how many signed
	// checkpoints they were held to, the last of which covers Covered entries.
	Files       int
	Checkpoints int
	Covered     int
}

// Verify reads a whole log and holds every line to the chain. The error is a
// *BadEntry for the first line that does not belong where it stands, or the
// reader's own. A torn last line is reported and is no error: the next Open
// sets it aside.
func Verify(r io.Reader) (Report, error) {
	var v verifier
	err := v.read(r)
	return v.Report, err
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
