package audit

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func TestExtractedEntriesAreProvedToTheirCheckpointAcrossFiles(t *testing.T) {
	for _, entries := range []int{1, 3, 8, 45} {
		path, cfg := newPath(t), signing(t, 4<<10)
		l, _ := mustOpen(t, path, cfg)
		for i := range entries {
			e := numbered(i)
			if i%3 == 0 {
				e.Session = "s2"
			}
			mustAppend(t, l, e)
		}
		wanted := func(r Record) bool { return r.Session == "s2" }
		x, err := l.Extract(t.Context(), 1000, wanted)
		must(t, err)
		if len(x.Records) != (entries+2)/3 || len(x.Proofs) != len(x.Records) || x.Checkpoint.Head != l.Head() {
			t.Fatalf("%d of %d entries with %d proofs, up to %x", len(x.Records), entries, len(x.Proofs), x.Checkpoint.Head)
		}
		for i, r := range x.Records {
			at, leaf := int64(r.Seq-1), tlog.RecordHash(r.Line())
			if err := tlog.CheckRecord(x.Proofs[i], x.Checkpoint.Size, x.Checkpoint.Root, at, leaf); err != nil {
				t.Errorf("entry %d of %d: %v", r.Seq, entries, err)
			}
			r.Verb += "x"
			if tlog.CheckRecord(x.Proofs[i], x.Checkpoint.Size, x.Checkpoint.Root, at, tlog.RecordHash(r.Line())) == nil {
				t.Errorf("another entry %d is proved as well", r.Seq)
			}
		}
		if _, err := l.Extract(t.Context(), 0, wanted); err == nil {
			t.Error("more entries than asked for")
		}
	}
}

// Whoever edits the file beside the daemon that has it open does not get it to
// vouch for that.
func TestNothingIsExtractedFromALogThatWasEditedMeanwhile(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, signing(t, 1<<20))
	for i := range 9 {
		mustAppend(t, l, numbered(i))
	}
	all := func(Record) bool { return true }
	x, err := l.Extract(t.Context(), 9, all)
	must(t, err)
	line, edited := x.Records[4].Line(), x.Records[4]
	at := bytes.Index(mustRead(t, path), line)
	edited.Verb = strings.Repeat("x", len(edited.Verb))
	edited.Hash = hashOf(edited.appendBody(nil))
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt(edited.Line(), int64(at))
	must(t, err)
	for _, wanted := range []func(Record) bool{all, func(r Record) bool { return r.Seq == 9 }} {
		if x, err := l.Extract(t.Context(), 9, wanted); err == nil {
			t.Errorf("%d entries of an edited log are vouched for", len(x.Records))
		}
	}
	_, err = file.WriteAt(line, int64(at))
	must(t, err)
	if _, err := l.Extract(t.Context(), 9, all); err != nil {
		t.Errorf("the log as it was: %v", err)
	}
}
