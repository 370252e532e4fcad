package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A log that has grown to its limit goes on in a new file. The old one is
// renamed to end in the number of its first entry, ten digits or more, and is
// never written again. The new one begins with an entry of KindRotate that
// names the old one and, like every entry, has the hash of the one before it:
// the chain has no gap, and a file that is taken away leaves one.

// KindRotate is the kind of the entry that a file begins with which goes on
// where another one ended.
const KindRotate = "rotate"

// DefaultRotate is how large a file of the log gets: some 60,000 calls.
const DefaultRotate = 64 << 20

// rotatedName is what the file at path is called once it is full.
func rotatedName(path string, first uint64) string { return fmt.Sprintf("%s.%010d", path, first) }

// segment is one file of a log.
type segment struct {
	path  string
	first uint64 // number of its first entry; 0 for the file that is written
}

// segments are the files of the log at path, the oldest first, and last the
// one that is written, if it is there.
func segments(path string) ([]segment, error) {
	folder, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var all []segment
	prefix := filepath.Base(path) + "."
	for _, entry := range folder {
		number, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok || len(number) < 10 || strings.Trim(number, "0123456789") != "" {
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if err != nil || first == 0 {
			continue
		}
		all = append(all, segment{path: filepath.Join(filepath.Dir(path), entry.Name()), first: first})
	}
	slices.SortFunc(all, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	if _, err := os.Lstat(path); err == nil {
		all = append(all, segment{path: path})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// linesFrom yields the records of a whole log from a number on, across its
// files. They are held to their own hashes only.
func linesFrom(path string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		files, err := segments(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for i, s := range files {
			if i+1 < len(files) && files[i+1].first != 0 && files[i+1].first <= from {
				continue
			}
			if !s.yieldFrom(from, yield) {
				return
			}
		}
	}
}

func (s segment) yieldFrom(from uint64, yield func(Record, error) bool) (more bool) {
	file, err := os.Open(s.path)
	if err != nil {
		yield(Record{}, err)
		return false
	}
	defer file.Close()
	for record, err := range Read(file) {
		if errors.Is(err, ErrTorn) {
			return true
		}
		if err == nil && record.Seq < from {
			continue
		}
		if !yield(record, err) || err != nil {
			return false
		}
	}
	return true
}

// rotation is the entry a new file begins with.
func (l *Log) rotation() Event {
	return Event{Kind: KindRotate, Reason: fmt.Sprintf("continues %s, whose last entry is %d with hash %x",
		filepath.Base(rotatedName(l.path, l.first)), l.next.Seq, l.next.Hash)}
}

// rotate puts a new file in the place of the one that is full, of which all is
// on the disk. The turn is held.
func (l *Log) rotate(first uint64) error {
	if err := l.checkpoint(); err != nil {
		return err
	}
	full := rotatedName(l.path, l.fileFirst)
	if _, err := os.Lstat(full); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotating: %s stands there already", full)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Rename(l.path, full); err != nil {
		return fmt.Errorf("rotating: %w", err)
	}
	file, err := l.open(l.path)
	if err != nil {
		return fmt.Errorf("rotating: %w", err)
	}
	err = errors.Join(l.file.Close(), syncFolder(l.path))
	l.file, l.durable, l.fileFirst = file, 0, first
	return err
}
