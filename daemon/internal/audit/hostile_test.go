package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

var hostileTexts = map[string]string{
	"newline":        "a\nb\r\nc",
	"a forged line":  "x\"}\n{\"seq\":2,\"kind\":\"call\"}\n",
	"a forged hash":  `x","hash":"` + strings.Repeat("0", 64) + `"}`,
	"ESC":            "\x1b[2J\x1b]0;owned\x07",
	"all of C0":      all(0, 0x20),
	"DEL and C1":     all(0x7f, 0xa0),
	"bidi":           "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
	"line separator": "\u2028\u2029\u0085",
	"invalid UTF-8":  "\xff\xfe\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\xe2\x80",
	"NUL":            "a\x00b",
	"astral":         "😀\U0010ffff",
	"html":           "</script><!--&",
	"quotes":         `"\"\\"`,
	"1 MiB":          strings.Repeat("A", 1<<20),
	"1 MiB of ESC":   strings.Repeat("\x1b", 1<<20),
	"1 MiB of 0xff":  strings.Repeat("\xff", 1<<20),
}

func all(from, to rune) string {
	var b strings.Builder
	for r := from; r < to; r++ {
		b.WriteRune(r)
	}
	return b.String()
}

// hostileEvent has the text in every field there is.
func hostileEvent(s string) Event {
	b := []byte(s)
	return Event{
		Kind: s, Issuer: &Issuer{User: s, Agent: s}, Session: s, Connection: s, Recipient: s, RecipientKey: s, From: s,
		Call: s, Verb: s, Params: []Param{{Name: s, Value: s}, {Name: "n", Value: s}}, Decision: s, Rule: s, Cause: s, Reason: s,
		Stdout: &Digest{SHA256: s}, Stderr: &Digest{SHA256: s}, Request: b, Signature: b, TH2: b,
	}
}

// A4: whatever stands in a field, it is one line of printable ASCII that
// verifies, and the caller's event is as it was.
func TestHostileFieldsStayInOneLine(t *testing.T) {
	for name, text := range hostileTexts {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			l, _ := mustOpen(t, path, testConfig())
			event := hostileEvent(text)
			mustAppend(t, l, event)
			wantOnePlainLine(t, mustRead(t, path))
			wantSameThroughJSON(t, mustRead(t, path))
			if event.Reason != text || event.Issuer.User != text || event.Params[0].Value != text || len(event.Request) != len(text) {
				t.Error("Append wrote into the caller's event")
			}
		})
	}
}

func wantOnePlainLine(t *testing.T, data []byte) {
	t.Helper()
	line := bytes.TrimSuffix(data, []byte("\n"))
	if len(line) != len(data)-1 || len(data) > maxLine {
		t.Errorf("%d bytes, newline at the end: %t", len(data), len(line) != len(data))
	}
	for i, c := range line {
		if c < 0x20 || c > 0x7e {
			t.Fatalf("byte %d of the line is %#x", i, c)
		}
	}
	if report, err := Verify(bytes.NewReader(data)); err != nil || report.Entries != 1 || report.Torn {
		t.Errorf("got %+v, %v", report, err)
	}
}

// What audit tail prints must be what was hashed.
func wantSameThroughJSON(t *testing.T, data []byte) {
	t.Helper()
	for record, err := range Read(bytes.NewReader(data)) {
		must(t, err)
		var out bytes.Buffer
		must(t, json.NewEncoder(&out).Encode(record))
		if !bytes.Equal(out.Bytes(), data) {
			t.Errorf("encoding/json makes %.200s of it", out.Bytes())
		}
	}
}

// The bound that readers hold a line to is above what a writer can make.
func TestTheLargestEventIsBelowTheBound(t *testing.T) {
	e := hostileEvent(strings.Repeat("\x1b", 1<<20))
	for range 300 {
		e.Params = append(e.Params, e.Params[0])
	}
	path := newPath(t)
	l, _ := mustOpen(t, path, testConfig())
	mustAppend(t, l, e)
	wantOnePlainLine(t, mustRead(t, path))
	for record, err := range Read(bytes.NewReader(mustRead(t, path))) {
		must(t, err)
		last := record.Params[len(record.Params)-1]
		if len(record.Params) != MaxParams+1 || last.Value != "47 more parameters" {
			t.Errorf("%d parameters, the last %+v", len(record.Params), last)
		}
	}
}

func TestAParameterIsKeptWholeOrNamedByItsHash(t *testing.T) {
	long := strings.Repeat("x", MaxText)
	cases := map[string]struct {
		value, kept string
		whole       bool
	}{
		"short":                    {"web", "web", true},
		"empty":                    {"", "", true},
		"as long as may be":        {long, long, true},
		"one byte longer":          {long + "y", long, false},
		"a character on the edge":  {long[1:] + "é", long[1:], false},
		"not UTF-8":                {"a\xffb", "a\ufffdb", false},
		"U+FFFD itself is no loss": {"a\ufffdb", "a\ufffdb", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			l, _ := mustOpen(t, path, testConfig())
			mustAppend(t, l, Event{Kind: "call", Params: []Param{{Name: "p", Value: c.value, Length: 99, SHA256: "forged"}}})
			want := Param{Name: "p", Value: c.kept}
			if !c.whole {
				want.Length, want.SHA256 = len(c.value), fmt.Sprintf("%x", sha256.Sum256([]byte(c.value)))
			}
			for record, err := range Read(bytes.NewReader(mustRead(t, path))) {
				must(t, err)
				if got := record.Params[0]; got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}

func TestALongTextSaysThatItWasCut(t *testing.T) {
	got := clip(strings.Repeat("é", 1000))
	if !strings.HasSuffix(got, "é [cut from 2000 bytes]") || !utf8.ValidString(got) || len(got) > MaxText+40 {
		t.Errorf("got %q", got)
	}
}

func FuzzAppend(f *testing.F) {
	for _, text := range hostileTexts {
		f.Add(text[:min(len(text), MaxText+10)])
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg := testConfig()
		event := Event{Kind: "deny", Reason: text, Params: []Param{{Name: "n", Value: text}}}
		r := Record{Event: event.bounded(), Seq: 1, BootID: cfg.BootID, Wall: cfg.Wall(), Boot: cfg.Boot()}
		r.Hash = hashOf(r.appendBody(nil))
		wantOnePlainLine(t, append(r.Line(), '\n'))
	})
}
