package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testConfig has clocks that stand still, so that a log's bytes can be foretold.
func testConfig() Config {
	return Config{
		Wall:   func() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 5, time.UTC) },
		Boot:   func() time.Duration { return 90*time.Minute + 7 },
		BootID: "boot-1",
	}
}

func mustOpen(t *testing.T, path string, cfg Config) (*Log, Recovery) {
	t.Helper()
	l, recovery, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, recovery
}

func mustAppend(t *testing.T, l *Log, e Event) Entry {
	t.Helper()
	entry, err := l.Append(e)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "audit.log") }

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// numbered is the i-th event of a log that tests make up.
func numbered(i int) Event {
	status := i % 3
	return Event{
		Kind: "call", Issuer: &Issuer{UID: 1000, User: "alice", Agent: "you"}, Session: "s1",
		Call: fmt.Sprintf("call-%d", i), Verb: "ssh.tail_logs",
		Params: []Param{{Name: "service", Value: "web"}}, Decision: "allow", Status: &status,
		Request: []byte{byte(i), 1, 2, 3},
	}
}

// made is a log of n entries, as its lines with their newlines.
func made(t *testing.T, n int) [][]byte {
	t.Helper()
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	for i := range n {
		mustAppend(t, l, numbered(i))
	}
	lines := bytes.SplitAfter(mustRead(t, path), []byte("\n"))
	return lines[:n]
}

func verify(lines ...[]byte) (Report, error) { return Verify(bytes.NewReader(bytes.Join(lines, nil))) }

func TestALogThatWasOnlyAppendedToVerifies(t *testing.T) {
	path := newPath(t)
	l, recovery := mustOpen(t, path, testConfig())
	if recovery.Torn {
		t.Errorf("a new log was torn: %+v", recovery)
	}
	var last Entry
	for i := range 10 {
		last = mustAppend(t, l, numbered(i))
		if last.Seq != uint64(i+1) {
			t.Errorf("entry %d got number %d", i+1, last.Seq)
		}
	}
	report, err := Verify(bytes.NewReader(mustRead(t, path)))
	if err != nil || report.Entries != 10 || report.Torn || report.Head != last.Hash || l.Head() != last.Hash {
		t.Errorf("got %+v, %v; appended 10 with head %x, the log says %x", report, err, last.Hash, l.Head())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log's mode is %v, %v", info.Mode(), err)
	}
}

// The line is a promise to who checks a log without this program.
func TestTheLineIsTheDocumentedOne(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	entry := mustAppend(t, l, Event{
		Kind: "result", Issuer: &Issuer{UID: 7, User: "al", Agent: "you"}, Session: "s", Connection: "c",
		Recipient: "vendor", RecipientKey: "ab", From: "192.0.2.1", Call: "id", Verb: "v",
		Params: []Param{{Name: "a", Value: "é<\n"}, {Name: "b"}}, Decision: "allow", Rule: "grants.yaml:3",
		Cause: "exited", Reason: "r", Status: new(int), Stdout: &Digest{Bytes: 9, SHA256: "cd"}, Stderr: &Digest{},
		Count: 2, RID: "0a", Request: []byte{0xff, 0xfe}, Signature: []byte("s"), TH2: []byte("t"),
		End: []byte{0}, EndSignature: []byte("e"),
	})
	want := `{"seq":1,"prev":"` + strings.Repeat("0", 64) + `","boot_id":"boot-1","time":"2026-11-23T12:00:00.000000005Z","boot_s":5400.000000007,` +
		`"kind":"result","issuer":{"uid":7,"user":"al","agent":"you"},"session":"s","connection":"c","recipient":"vendor","recipient_key":"ab",` +
		`"from":"192.0.2.1","call":"id","verb":"v","params":[{"name":"a","value":"\u00e9\u003c\u000a"},{"name":"b"}],"decision":"allow","rule":"grants.yaml:3",` +
		`"cause":"exited","reason":"r","status":0,"stdout":{"bytes":9,"sha256":"cd"},"stderr":{"bytes":0},"count":2,` +
		`"rid":"0a","request":"//4=","signature":"cw==","th2":"dA==","end":"AA==","end_signature":"ZQ==","hash":"` + fmt.Sprintf("%x", entry.Hash) + "\"}\n"
	if got := string(mustRead(t, path)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheChainGoesOnAcrossRestarts(t *testing.T) {
	path := newPath(t)
	for i := range 5 {
		l, recovery := mustOpen(t, path, testConfig())
		if recovery.Torn {
			t.Fatalf("start %d found a torn line: %+v", i, recovery)
		}
		before := l.Head()
		mustAppend(t, l, numbered(i))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		report, err := Verify(bytes.NewReader(mustRead(t, path)))
		if err != nil || report.Entries != i+1 || report.Head == before {
			t.Fatalf("after start %d: %+v, %v", i, report, err)
		}
	}
}

func TestALogWithoutClocksIsRefused(t *testing.T) {
	if _, _, err := Open(newPath(t), Config{}); err == nil {
		t.Error("the zero Config was taken")
	}
}

func TestTheKernelNamesTheBoot(t *testing.T) {
	path := newPath(t)
	cfg := testConfig()
	cfg.BootID = ""
	l, _ := mustOpen(t, path, cfg)
	mustAppend(t, l, numbered(0))
	want := strings.TrimSpace(string(mustRead(t, "/proc/sys/kernel/random/boot_id")))
	for record, err := range Read(bytes.NewReader(mustRead(t, path))) {
		if err != nil || record.BootID != want {
			t.Errorf("got %q, %v; want %q", record.BootID, err, want)
		}
	}
}

// A year that cannot be written the documented way would make a line that no
// reader takes. Nothing is written, and the log is not harmed.
func TestAnImpossibleClockIsRefused(t *testing.T) {
	path := newPath(t)
	cfg := testConfig()
	year := 12026
	cfg.Wall = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	l, _ := mustOpen(t, path, cfg)
	if _, err := l.Append(numbered(0)); err == nil || len(mustRead(t, path)) > 0 {
		t.Errorf("error %v, and the file has %d bytes", err, len(mustRead(t, path)))
	}
	year = 2026
	if entry := mustAppend(t, l, numbered(0)); entry.Seq != 1 {
		t.Errorf("the next entry has number %d", entry.Seq)
	}
}

func TestTwoProcessesCannotWriteOneLog(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	_, _, err := Open(path, testConfig())
	wantError(t, err, ErrLocked)
	l.Close()
	mustOpen(t, path, testConfig())
}

func TestAFileThatOthersControlIsRefused(t *testing.T) {
	cases := map[string]func(t *testing.T, path string){
		"symbolic link": func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".real", nil, 0o600))
			must(t, os.Symlink(path+".real", path))
		},
		"folder":         func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
		"group writable": func(t *testing.T, path string) { makeMode(t, path, 0o660) },
		"world writable": func(t *testing.T, path string) { makeMode(t, path, 0o602) },
		"somebody else's": func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			makeMode(t, path, 0o600)
			must(t, os.Chown(path, 65534, 65534))
		},
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			make(t, path)
			if l, _, err := Open(path, testConfig()); err == nil {
				l.Close()
				t.Error("it was opened")
			}
		})
	}
}

func makeMode(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Chmod(path, mode))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
