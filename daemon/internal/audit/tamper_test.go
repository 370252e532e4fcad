package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"openscope/bench/vectors"
)

// wantBad wants Verify to name this line (from 1) as the first bad one.
func wantBad(t *testing.T, what string, line int, lines ...[]byte) {
	t.Helper()
	report, err := verify(lines...)
	bad, ok := errors.AsType[*BadEntry](err)
	if !ok {
		t.Fatalf("%s: %+v, %v", what, report, err)
	}
	if bad.Line != line || report.Entries != line-1 {
		t.Fatalf("%s: named line %d after %d good ones, not %d (%s)", what, bad.Line, report.Entries, line, bad.Reason)
	}
}

// tampering changes the line at index i of a log. It returns what stands there
// now, and how many lines after i (0 or 1) the first bad one is.
type tampering func(t *testing.T, log [][]byte, i int) (now [][]byte, after int)

// instead puts other lines in the place of line i.
func instead(log [][]byte, i int, now ...[]byte) [][]byte {
	return slices.Concat(log[:i], now, log[i+1:])
}

var tamperings = map[string]tampering{
	"one bit changed": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		edited := bytes.Clone(log[i])
		edited[(i*7)%(len(edited)-1)] ^= 1
		return instead(log, i, edited), 0
	},
	"cut short": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i, append(bytes.Clone(log[i][:len(log[i])/2]), '\n')), 0
	},
	"emptied": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i, []byte("\n")), 0
	},
	"twice": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i, log[i], log[i]), 1
	},
	"another hash": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		body := log[i][:len(log[i])-hashEnd-1]
		return instead(log, i, append(appendHash(bytes.Clone(body), [32]byte{1}), '\n')), 0
	},
}

// What is done at the very end is TestCuttingTheEndOffChangesTheHead, and
// TestATornEndIsReportedAtEveryByte.
var tamperingsBeforeTheEnd = map[string]tampering{
	"removed": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i), 0
	},
	"moved behind the next": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return slices.Concat(log[:i], [][]byte{log[i+1], log[i]}, log[i+2:]), 0
	},
	"joined with the next": func(_ *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i, log[i][:len(log[i])-1]), 0
	},
	"rewritten with a hash that fits": func(t *testing.T, log [][]byte, i int) ([][]byte, int) {
		return instead(log, i, rewritten(t, log[i])), 1
	},
}

// A3, at every position.
func TestVerifyNamesTheFirstBadLine(t *testing.T) {
	log := made(t, lineCount)
	check := func(name string, tamper tampering, positions int) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range positions {
				now, after := tamper(t, log, i)
				wantBad(t, name, i+1+after, now...)
			}
		})
	}
	for name, tamper := range tamperings {
		check(name, tamper, lineCount)
	}
	for name, tamper := range tamperingsBeforeTheEnd {
		check(name, tamper, lineCount-1)
	}
}

// rewritten is what who may write the file would make of a line: other
// content, and a hash that fits it.
func rewritten(t *testing.T, line []byte) []byte {
	t.Helper()
	record, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
	must(t, err)
	record.Verb = "harmless"
	record.Hash = hashOf(record.appendBody(nil))
	return append(record.Line(), '\n')
}

func TestEveryChangedByteOfALineIsFound(t *testing.T) {
	log := made(t, 3)
	for i := range log[1] {
		for _, flip := range []byte{1, 0x20, 0x80} {
			edited := bytes.Clone(log[1])
			edited[i] ^= flip
			wantBad(t, "one byte changed", 2, log[0], edited, log[2])
		}
	}
}

// The chain alone cannot show that the end is missing: the head can, and the
// report carries it.
func TestCuttingTheEndOffChangesTheHead(t *testing.T) {
	log := made(t, lineCount)
	seen := make(map[[32]byte]bool)
	for n := range lineCount + 1 {
		report, err := verify(log[:n]...)
		if err != nil || report.Entries != n || seen[report.Head] {
			t.Fatalf("first %d lines: %+v, %v; head seen before: %t", n, report, err, seen[report.Head])
		}
		seen[report.Head] = true
	}
}

func TestATornEndIsReportedAtEveryByte(t *testing.T) {
	log := made(t, 3)
	for cut := 1; cut < len(log[2]); cut++ {
		report, err := verify(log[0], log[1], log[2][:cut])
		if err != nil || !report.Torn || report.Entries != 2 {
			t.Fatalf("cut after %d bytes: %+v, %v", cut, report, err)
		}
	}
}

// Each of these carries the right hash, and says the same to encoding/json:
// one way to write a record means that no two readers can differ.
func TestOnlyTheLogsOwnFormIsTaken(t *testing.T) {
	line := strings.TrimSpace(string(made(t, 1)[0]))
	body := line[:len(line)-hashEnd]
	cases := map[string]string{
		"a space":             strings.Replace(body, `"kind":`, `"kind": `, 1),
		"a name in capitals":  strings.Replace(body, `"kind"`, `"KIND"`, 1),
		"a member twice":      strings.Replace(body, `"kind":`, `"kind":"deny","kind":`, 1),
		"an unknown member":   body + `,"more":1`,
		"another order":       strings.Replace(body, `"session":"s1","call":"call-0"`, `"call":"call-0","session":"s1"`, 1),
		"an empty member":     body + `,"th2":""`,
		"a null":              body + `,"th2":null`,
		"an escaped letter":   strings.Replace(body, "alice", `\u0061lice`, 1),
		"capitals in hex":     strings.Replace(body, `"service"`, `"\u00E9"`, 1),
		"raw UTF-8":           strings.Replace(body, "alice", "alicé", 1),
		"another zone":        strings.Replace(body, "12:00:00.000000005Z", "13:00:00.000000005+01:00", 1),
		"a short time":        strings.Replace(body, ".000000005Z", "Z", 1),
		"a float":             strings.Replace(body, `"seq":1`, `"seq":1e0`, 1),
		"a negative boot":     strings.Replace(body, `"boot_s":`, `"boot_s":-`, 1),
		"no prev":             strings.Replace(body, `"prev":"`+strings.Repeat("0", 64)+`",`, "", 1),
		"a list":              "[" + body,
		"two objects":         body + `}{"a":1`,
		"nothing":             "",
		"a length alone":      strings.Replace(body, `"value":"web"`, `"value":"web","length":3`, 1),
		"a capital in base64": strings.Replace(body, `"AAECAw=="`, `"AAECAx=="`, 1),
	}
	for name, changed := range cases {
		if changed == body {
			t.Errorf("%s: the case changes nothing", name)
		}
		forged := append(appendHash([]byte(changed), hashOf([]byte(changed))), '\n')
		if report, err := verify(forged); err == nil {
			t.Errorf("%s was taken: %+v\n%s", name, report, forged)
		}
	}
	if _, err := verify([]byte(line + "\n")); err != nil {
		t.Errorf("the line they are made from: %v", err)
	}
}

func TestALineLongerThanAnyIsRefusedUnread(t *testing.T) {
	endless := io.MultiReader(bytes.NewReader(made(t, 1)[0]), iotest.OneByteReader(strings.NewReader("{")), zeros{})
	_, err := Verify(endless)
	if bad, ok := errors.AsType[*BadEntry](err); !ok || bad.Line != 2 {
		t.Errorf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestAReadersErrorIsNotABadLine(t *testing.T) {
	broken := io.MultiReader(bytes.NewReader(made(t, 1)[0]), iotest.ErrReader(io.ErrClosedPipe))
	report, err := Verify(broken)
	wantError(t, err, io.ErrClosedPipe)
	if _, ok := errors.AsType[*BadEntry](err); ok || report.Entries != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	want := numbered(2)
	mustAppend(t, l, want)
	for record, err := range Read(bytes.NewReader(mustRead(t, path))) {
		must(t, err)
		got, _ := json.Marshal(record.Event)
		expected, _ := json.Marshal(want)
		if !bytes.Equal(got, expected) {
			t.Errorf("got  %s\nwant %s", got, expected)
		}
		if cfg := testConfig(); !record.Wall.Equal(cfg.Wall()) || record.Boot != cfg.Boot() || record.Wall.Location() != time.UTC {
			t.Errorf("the clocks came back as %s and %s", record.Wall, record.Boot)
		}
		if line := append(record.Line(), '\n'); !bytes.Equal(line, mustRead(t, path)) {
			t.Errorf("Line gives %s", line)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, log := range vectors.Load(f, "../../..", "audit").Inputs(f, "log", false) {
		f.Add(log)
	}
	cfg := testConfig()
	var lines []byte
	var prev [32]byte
	for i := range 3 {
		r := Record{Event: numbered(i), Seq: uint64(i + 1), Prev: prev, BootID: cfg.BootID, Wall: cfg.Wall(), Boot: cfg.Boot()}
		prev = hashOf(r.appendBody(nil))
		lines = append(append(lines, appendHash(r.appendBody(nil), prev)...), '\n')
	}
	f.Add(lines)
	f.Add(lines[:len(lines)-1])
	f.Add(lines[len(lines)/2:])
	f.Add([]byte("\n"))
	f.Add([]byte(`{"seq":1,"hash":"` + strings.Repeat("0", 64) + "\"}\n"))
	f.Add(append(appendHash([]byte(`{"seq":1,"boot_s":1e9`), hashOf([]byte(`{"seq":1,"boot_s":1e9`))), '\n'))
	f.Fuzz(func(t *testing.T, data []byte) {
		vectors.HoldFuzzed(t, data, func(b []byte) { _, _ = Verify(bytes.NewReader(b)) })
		report, err := Verify(bytes.NewReader(data))
		var again []byte
		for record, err := range Read(bytes.NewReader(data)) {
			if err == nil {
				again = append(append(again, record.Line()...), '\n')
			}
		}
		if !bytes.HasPrefix(data, again) {
			t.Errorf("the records read are written as\n%q\nand were\n%q", again, data)
		}
		if err == nil && !report.Torn && len(again) != len(data) {
			t.Errorf("%d of %d bytes were verified", len(again), len(data))
		}
		if report.Entries > bytes.Count(data, []byte("\n")) {
			t.Errorf("%d entries in %q", report.Entries, data)
		}
	})
}
