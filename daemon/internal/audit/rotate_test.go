package audit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// signing is testConfig with a key for checkpoints, and files that fill soon.
func signing(t *testing.T, rotate int64) Config {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "openscope-log")
	must(t, err)
	cfg := testConfig()
	cfg.Rotate = rotate
	cfg.Signer, err = note.NewSigner(private)
	must(t, err)
	cfg.Verifier, err = note.NewVerifier(public)
	must(t, err)
	return cfg
}

func wantWhole(t *testing.T, path string, key note.Verifier, l *Log) Report {
	t.Helper()
	report, err := VerifyFiles(path, key)
	if err != nil || report.Head != l.Head() || uint64(report.Entries) != l.progress().seq {
		t.Fatalf("got %+v, %v; the log ends at %d", report, err, l.progress().seq)
	}
	return report
}

func TestAFullFileIsRotatedWithoutAGapAcrossRestarts(t *testing.T) {
	path, cfg := newPath(t), signing(t, 4<<10)
	for range 5 {
		l, _ := mustOpen(t, path, cfg)
		for i := range 40 {
			mustAppend(t, l, numbered(i))
		}
		must(t, l.Close())
		report := wantWhole(t, path, cfg.Verifier, l)
		if report.Covered != report.Entries {
			t.Errorf("closed with %d of %d entries under a checkpoint", report.Covered, report.Entries)
		}
	}
	files, err := segments(path)
	must(t, err)
	if len(files) < 10 {
		t.Fatalf("200 entries stand in %d files of 4 KiB", len(files))
	}
	for _, f := range files[1:] {
		for record, err := range Read(bytes.NewReader(mustRead(t, f.path))) {
			if err != nil || record.Kind != KindRotate {
				t.Errorf("%s begins with %s, %v", f.path, record.Kind, err)
			}
			break
		}
	}
	l, _ := mustOpen(t, path, cfg)
	want := l.progress().seq
	var seq uint64
	for record, err := range l.Tail(t.Context(), -1, false) {
		must(t, err)
		if seq++; record.Seq != seq {
			t.Fatalf("entry %d is read where %d should be", record.Seq, seq)
		}
	}
	if seq != want {
		t.Errorf("%d entries are read of %d", seq, want)
	}
}

// The tail that only the chain guards is found through the checkpoint.
func TestATruncatedTailContradictsTheCheckpointAtEveryLine(t *testing.T) {
	path, cfg := newPath(t), signing(t, 0)
	l, _ := mustOpen(t, path, cfg)
	for i := range truncations {
		mustAppend(t, l, numbered(i))
	}
	must(t, l.Close())
	lines := bytes.SplitAfter(mustRead(t, path), []byte("\n"))
	for keep := range truncations {
		must(t, os.WriteFile(path, bytes.Join(lines[:keep], nil), 0o600))
		_, err := VerifyFiles(path, cfg.Verifier)
		if bad, ok := errors.AsType[*BadEntry](err); !ok || bad.Line != keep+1 {
			t.Errorf("%d lines kept: %v", keep, err)
		}
		if opened, _, err := Open(path, cfg); err == nil {
			opened.Close()
			t.Errorf("%d lines kept, and the log is carried on", keep)
		}
	}
}

func TestCheckpointsOfAnotherKeyAreNotCarriedOn(t *testing.T) {
	path, cfg := newPath(t), signing(t, 0)
	cfg.KeyNote = "one"
	l, recovery := mustOpen(t, path, cfg)
	mustAppend(t, l, numbered(0))
	must(t, l.Close())
	if recovery.Unsigned != 0 {
		t.Errorf("a new log has %d entries without a checkpoint", recovery.Unsigned)
	}
	cfg.KeyNote = "another"
	_, _, err := Open(path, cfg)
	wantError(t, err, ErrOtherKey)
	// A file that was taken away is begun anew, and says so.
	must(t, os.Remove(CheckpointsOf(path)))
	_, recovery = mustOpen(t, path, cfg)
	if recovery.Unsigned != 1 {
		t.Errorf("%d entries are said to stand without a checkpoint", recovery.Unsigned)
	}
}

// A log that is written anew, its chain whole, has another root.
func TestALogRewrittenWholeContradictsTheCheckpoint(t *testing.T) {
	path, cfg := newPath(t), signing(t, 0)
	l, _ := mustOpen(t, path, cfg)
	for i := range 20 {
		mustAppend(t, l, numbered(i))
	}
	must(t, l.Close())
	other := newPath(t)
	forged, _ := mustOpen(t, other, testConfig())
	for i := range 20 {
		e := numbered(i)
		if i == 7 {
			e.Verb = "ssh.other"
		}
		mustAppend(t, forged, e)
	}
	must(t, os.WriteFile(path, mustRead(t, other), 0o600))
	_, err := VerifyFiles(path, cfg.Verifier)
	if bad, ok := errors.AsType[*BadEntry](err); !ok || !strings.Contains(bad.Reason, "checkpoint") {
		t.Errorf("got %v", err)
	}
}

func TestAFileTakenOutOfTheMiddleIsNamed(t *testing.T) {
	path, cfg := newPath(t), signing(t, 4<<10)
	l, _ := mustOpen(t, path, cfg)
	for i := range 100 {
		mustAppend(t, l, numbered(i))
	}
	must(t, l.Close())
	files, err := segments(path)
	must(t, err)
	for i, f := range files {
		data := mustRead(t, f.path)
		must(t, os.Remove(f.path))
		if _, err := VerifyFiles(path, cfg.Verifier); err == nil {
			t.Errorf("without file %d of %d it verifies", i+1, len(files))
		}
		must(t, os.WriteFile(f.path, data, 0o600))
	}
	wantWhole(t, path, cfg.Verifier, l)
}
