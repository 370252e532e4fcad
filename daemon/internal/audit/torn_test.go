package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// T6's tail end: a crash at every byte of an append. What was whole stays,
// what was torn is set aside and noted, and the chain goes on.
func TestATornLineIsSetAsideAtEveryByte(t *testing.T) {
	log := made(t, 3)
	whole := append(bytes.Clone(log[0]), log[1]...)
	for cut := 1; cut < len(log[2]); cut++ {
		path := newPath(t)
		must(t, os.WriteFile(path, append(bytes.Clone(whole), log[2][:cut]...), 0o600))
		wantSetAside(t, path, whole, log[2][:cut], 2)
	}
}

func TestAFileThatIsAllTornIsSetAside(t *testing.T) {
	path := newPath(t)
	torn := bytes.Repeat([]byte{0}, 200_000)
	must(t, os.WriteFile(path, torn, 0o600))
	wantSetAside(t, path, nil, torn, 0)
}

func wantSetAside(t *testing.T, path string, whole, torn []byte, entries int) {
	t.Helper()
	l, recovery := mustOpen(t, path, testConfig())
	want := Recovery{Torn: true, Bytes: int64(len(torn)), SetAside: fmt.Sprintf("%s.torn-%d", path, entries+1)}
	if recovery != want {
		t.Fatalf("got %+v, want %+v", recovery, want)
	}
	if !bytes.Equal(mustRead(t, recovery.SetAside), torn) {
		t.Errorf("the side file holds %q", mustRead(t, recovery.SetAside))
	}
	mustAppend(t, l, numbered(7))
	must(t, l.Close())
	data := mustRead(t, path)
	if !bytes.HasPrefix(data, whole) {
		t.Error("what was whole has changed")
	}
	if report, err := Verify(bytes.NewReader(data)); err != nil || report.Torn || report.Entries != entries+2 {
		t.Fatalf("got %+v, %v", report, err)
	}
	for record := range Read(bytes.NewReader(data)) {
		if record.Seq == uint64(entries+1) && (record.Kind != KindTorn || !strings.Contains(record.Reason, filepath.Base(recovery.SetAside))) {
			t.Errorf("the note is %+v", record.Event)
		}
	}
	if _, again := mustOpen(t, path, testConfig()); again.Torn {
		t.Errorf("the next start found another: %+v", again)
	}
}

// A crash between writing the side file and cutting the log leaves both: the
// next start must not lose either.
func TestASideFileIsNeverWrittenOver(t *testing.T) {
	log := made(t, 1)
	path := newPath(t)
	must(t, os.WriteFile(path, append(bytes.Clone(log[0]), "torn"...), 0o600))
	must(t, os.WriteFile(path+".torn-2", []byte("from before"), 0o600))
	_, recovery := mustOpen(t, path, testConfig())
	if recovery.SetAside != path+".torn-2.1" || string(mustRead(t, path+".torn-2")) != "from before" {
		t.Errorf("got %+v, and %q before", recovery, mustRead(t, path+".torn-2"))
	}
}

func TestALogThatEndsWronglyIsNotCarriedOn(t *testing.T) {
	log := made(t, 4)
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	edited := bytes.Replace(log[3], []byte("alice"), []byte("mallo"), 1)
	cases := map[string]struct {
		data []byte
		line int
	}{
		"an edited last line":      {join(log[0], log[1], log[2], edited), 4},
		"an empty last line":       {join(log[0], log[1], []byte("\n")), 3},
		"the beginning is missing": {join(log[3]), 1},
		"begun anew":               {join(log[1], log[0]), 1},
		"zeros and a newline":      {join(log[0], make([]byte, 5000), []byte("\n")), 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			must(t, os.WriteFile(path, c.data, 0o600))
			_, _, err := Open(path, testConfig())
			if bad, ok := errors.AsType[*BadEntry](err); !ok || bad.Line != c.line {
				t.Errorf("got %v, want line %d named", err, c.line)
			}
			if !bytes.Equal(mustRead(t, path), c.data) {
				t.Error("Open changed the file")
			}
		})
	}
}

// What the page cache has from a process that died need not be on the disk:
// Open syncs before it builds on it.
func TestOpenSyncsWhatItFinds(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, made(t, 1)[0], 0o600))
	file := &faulty{}
	cfg := testConfig()
	cfg.Open = file.open
	mustOpen(t, path, cfg)
	if file.syncs != 1 {
		t.Errorf("%d syncs", file.syncs)
	}
	broken := &faulty{failSync: 1, armed: true}
	cfg.Open = broken.open
	path = newPath(t)
	if _, _, err := Open(path, cfg); err == nil {
		t.Error("a sync that failed in Open was ignored")
	}
}

func TestScanningBackFindsLinesAcrossBlocks(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	text := "a\n" + long + "\n" + "b\n" + long + "\nc"
	ends := []int{len(text) - 1, len(text) - 1 - 70_001, 2 + 70_001, 2, 0, 0}
	for i, want := range ends {
		got, err := scanBack(strings.NewReader(text), int64(len(text)), i+1)
		if err != nil || got != int64(want) {
			t.Errorf("%d newlines back: %d, %v; want %d", i+1, got, err, want)
		}
	}
}
