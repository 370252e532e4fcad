package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"openscope/wire/checkpoint"
)

// verifier holds lines to the chain, one after another and across files.
type verifier struct {
	Report
	line int // of the file being read
	tree tree
	// atEach, where it is set, sees every good entry.
	atEach func(Record) error
}

func (v *verifier) read(r io.Reader) error {
	v.line = 0
	for record, err := range Read(r) {
		if errors.Is(err, ErrTorn) {
			v.Torn = true
			return nil
		}
		if err != nil {
			return err
		}
		v.line++
		bad := &BadEntry{Line: v.line, Seq: record.Seq}
		if want := uint64(v.Entries + 1); record.Seq != want {
			bad.Reason = fmt.Sprintf("its number is %d where %d should be", record.Seq, want)
			return bad
		}
		if record.Prev != v.Head {
			bad.Reason = "it does not follow from the line before"
			return bad
		}
		v.Entries, v.Head = v.Entries+1, record.Hash
		if v.atEach == nil {
			continue
		}
		if err := v.atEach(record); err != nil {
			return err
		}
	}
	return nil
}

// VerifyFiles holds a whole log, across its files, to its chain, and to every
// checkpoint beside it, signed by key: a tail that was cut off, or a log that
// was rewritten from some entry on, contradicts one. Without a key the
// checkpoints are left alone. The error is a *BadEntry for the first entry that
// is not what it was.
func VerifyFiles(path string, key note.Verifier) (Report, error) {
	for try := 1; ; try++ {
		files, err := segments(path)
		if err != nil {
			return Report{}, err
		}
		if len(files) == 0 {
			return Report{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		report, err := verifyFiles(path, files, key)
		if err == nil || try == 3 {
			return report, err
		}
		// A file that was set aside meanwhile was read as the one after it.
		if now, err2 := segments(path); err2 != nil || slices.Equal(now, files) {
			return report, err
		}
	}
}

func verifyFiles(path string, files []segment, key note.Verifier) (Report, error) {
	v := &verifier{Report: Report{Files: len(files)}}
	points := &pointsVerifier{verifier: v, key: key}
	if key != nil {
		next, stop := iter.Pull2(readCheckpoints(CheckpointsOf(path)))
		defer stop()
		points.next = next
		v.atEach = points.entry
		if err := points.advance(); err != nil {
			return v.Report, err
		}
	}
	for i, file := range files {
		if err := v.file(file, i+1 == len(files)); err != nil {
			return v.Report, err
		}
	}
	return v.Report, points.end(files[len(files)-1].path)
}

// file holds one file to what came before it.
func (v *verifier) file(s segment, last bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = v.read(f)
	if err == nil && v.Torn && !last {
		err = &BadEntry{Line: v.line + 1, Reason: "it is unfinished, and another file follows"}
	}
	if bad, ok := errors.AsType[*BadEntry](err); ok && v.Files > 1 {
		bad.File = filepath.Base(s.path)
	}
	return err
}

// pointsVerifier holds a log to its checkpoints while it is read.
type pointsVerifier struct {
	*verifier
	key  note.Verifier
	next func() (checkpointLine, error, bool)
	due  *checkpoint.Checkpoint // the next one; nil after the last
}

// advance takes up the next checkpoint.
func (p *pointsVerifier) advance() error {
	for {
		line, err, ok := p.next()
		if !ok {
			p.due = nil
			return nil
		}
		if err != nil {
			return err
		}
		if line.Note == "" {
			continue
		}
		c, err := checkpoint.Parse(line.Note, p.key)
		if err != nil {
			return err
		}
		if c.Size < int64(p.Entries) || p.due != nil && c.Size <= p.due.Size {
			return fmt.Errorf("checkpoint %d covers %d entries, fewer than the one before", p.Checkpoints+1, c.Size)
		}
		p.due = &c
		return nil
	}
}

func (p *pointsVerifier) entry(r Record) error {
	p.tree.add(r.Line(), nil)
	for p.due != nil && p.due.Size == p.tree.size {
		if p.due.Root != p.tree.root() || p.due.Head != r.Hash {
			return &BadEntry{Line: p.line, Seq: r.Seq, Reason: fmt.Sprintf(
				"it, or one of the entries from %d on, is not what it was when a checkpoint was signed", p.Covered+1)}
		}
		p.Checkpoints++
		p.Covered = int(p.due.Size)
		if err := p.advance(); err != nil {
			return err
		}
	}
	return nil
}

// end is after the last entry.
func (p *pointsVerifier) end(path string) error {
	if p.due == nil {
		return nil
	}
	bad := &BadEntry{Line: p.line + 1, Reason: fmt.Sprintf(
		"the log ends before it with entry %d, and had %d entries when a checkpoint was signed", p.Entries, p.due.Size)}
	if p.Files > 1 {
		bad.File = filepath.Base(path)
	}
	return bad
}

// VerifyPart holds one file of a log to itself: it may begin anywhere in it.
func VerifyPart(r io.ReadSeeker) (Report, error) {
	var v verifier
	for record, err := range Read(r) {
		if err != nil {
			return v.Report, err
		}
		v.Entries, v.Head = int(record.Seq)-1, record.Prev
		break
	}
	first := v.Entries
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return v.Report, err
	}
	err := v.read(r)
	v.Entries -= first
	return v.Report, err
}
