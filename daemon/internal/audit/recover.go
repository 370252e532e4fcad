package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// recover finds the end of the chain, sets a torn line aside, and makes sure
// that what the chain will be continued from is on the disk: a process that
// died after its write and before its sync left lines that only the page cache
// has.
func (l *Log) recover() (Recovery, error) {
	info, err := l.file.Stat()
	if err != nil {
		return Recovery{}, err
	}
	// The file may have been replaced between being opened and being locked.
	if err := intact(l.path, l.file, info.Size()); err != nil {
		return Recovery{}, err
	}
	end, err := scanBack(l.file, info.Size(), 1)
	if err != nil {
		return Recovery{}, fmt.Errorf("looking for the last line: %w", err)
	}
	if err := l.continueFrom(end); err != nil {
		return Recovery{}, err
	}
	var recovery Recovery
	if end < info.Size() {
		if recovery, err = l.setAside(end, info.Size()); err != nil {
			return recovery, fmt.Errorf("setting a torn line aside: %w", err)
		}
	}
	if err := l.file.Sync(); err != nil {
		return recovery, err
	}
	return recovery, syncFolder(l.path)
}

// continueFrom takes the chain up at the last line, which ends at this offset.
// Where the file has none it is that of the file before.
func (l *Log) continueFrom(end int64) error {
	files, err := segments(l.path)
	if err != nil {
		return err
	}
	if n := len(files); n > 0 && files[n-1].first == 0 {
		files = files[:n-1]
	}
	var before, last Record
	if n := len(files); n > 0 {
		if before, err = lastOf(files[n-1]); err != nil {
			return err
		}
	}
	if last, err = lastRecord(l.file, end, before); err != nil {
		return err
	}
	l.next = Entry{Seq: last.Seq, Hash: last.Hash}
	l.head, l.written, l.durable, l.size, l.shownSeq = last.Hash, last.Hash, end, end, last.Seq
	l.first, l.fileFirst = before.Seq+1, before.Seq+1
	return nil
}

// lastOf is the last record of a file that is full.
func lastOf(s segment) (Record, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Record{}, err
	}
	start, err := scanBack(f, info.Size(), 2)
	if err != nil {
		return Record{}, fmt.Errorf("looking for the last line: %w", err)
	}
	for record, err := range Read(io.NewSectionReader(f, start, info.Size()-start)) {
		if err == nil {
			return record, nil
		}
	}
	return Record{}, fmt.Errorf("%s: its last line is not an entry", s.path)
}

// lastRecord is the record whose line ends at end, or, before the file's first
// line, what the file goes on from.
func lastRecord(file File, end int64, before Record) (Record, error) {
	if end == 0 {
		return before, nil
	}
	start, err := scanBack(file, end, 2)
	if err != nil {
		return Record{}, fmt.Errorf("looking for the last line: %w", err)
	}
	for record, err := range Read(io.NewSectionReader(file, start, end-start)) {
		if err == nil && (record.Seq == before.Seq+1) == (start == 0) {
			return record, nil
		}
	}
	// It cannot be carried on. Where it went wrong takes reading all of it.
	v := verifier{Report: Report{Entries: int(before.Seq), Head: before.Hash}}
	if err := v.read(io.NewSectionReader(file, 0, end)); err != nil {
		return Record{}, err
	}
	return Record{}, errors.New("the last line changed while it was read")
}

// setAside moves the bytes from end on into a file of their own. They are
// durable there before they are cut off here.
func (l *Log) setAside(end, size int64) (Recovery, error) {
	side, err := newSideFile(fmt.Sprintf("%s.torn-%d", l.path, l.next.Seq+1))
	if err != nil {
		return Recovery{}, err
	}
	defer side.Close() // for the ways out below; an error of the good one is caught by Sync
	found := Recovery{Torn: true, Bytes: size - end, SetAside: side.Name()}
	if _, err := io.Copy(side, io.NewSectionReader(l.file, end, size-end)); err != nil {
		return found, err
	}
	if err := side.Sync(); err != nil {
		return found, err
	}
	if err := syncFolder(side.Name()); err != nil {
		return found, err
	}
	return found, l.file.Truncate(end)
}

// newSideFile makes a file of this name, or with a number behind it where a
// crash during an earlier recovery left one.
func newSideFile(name string) (*os.File, error) {
	for i := range 1000 {
		try := name
		if i > 0 {
			try = fmt.Sprintf("%s.%d", name, i)
		}
		f, err := os.OpenFile(try, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s and 999 more stand there already", name)
}

// event is the entry that notes what was set aside. The hash ties it to the
// file's content.
func (r Recovery) event() Event {
	e := Event{Kind: KindTorn, Reason: fmt.Sprintf("%d bytes of an unfinished last line were set aside in %s", r.Bytes, filepath.Base(r.SetAside))}
	if sum, err := sumFile(r.SetAside); err == nil {
		e.Reason += ", SHA-256 " + sum
	}
	return e
}

func sumFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
