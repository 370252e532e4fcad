package audit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
)

// vectorLog is a log with what strangers can put into it.
func vectorLog() []Record {
	status, boot := 3, "0fba5d6e-4a2b-4b9c-8b38-0d3e6c7a1f00"
	events := []Event{
		{Kind: "start"},
		{Kind: "open", Issuer: &Issuer{UID: 1000, User: "you", Agent: "you"}, Session: "s-4f2a9c1b", Recipient: "vendor-b"},
		{
			Kind: "call", Session: "s-4f2a9c1b", Call: strings.Repeat("01", 16), Verb: "ssh.tail_logs", Decision: "allow", Rule: "grants.yaml:7",
			Params: []Param{{Name: "service", Value: "web"}, {Name: "filter", Value: "\x1b[2J\r\n\"<\\>\u202e\xff é 😀"}},
			RID:    strings.Repeat("0c", 16), Request: []byte{1, 2, 3}, Signature: bytes.Repeat([]byte{7}, 64), TH2: bytes.Repeat([]byte{8}, 32),
		},
		{
			Kind: "result", Session: "s-4f2a9c1b", Call: strings.Repeat("01", 16), Verb: "ssh.tail_logs", Cause: "exited", Status: &status,
			Stdout: &Digest{Bytes: 5, SHA256: strings.Repeat("ab", 32)}, Stderr: &Digest{SHA256: strings.Repeat("cd", 32)},
			RID: strings.Repeat("0c", 16), End: bytes.Repeat([]byte{9}, 141), EndSignature: bytes.Repeat([]byte{10}, 64),
		},
		{Kind: "deny", Session: "s-4f2a9c1b", Cause: "limit", Count: 180},
	}
	var log []Record
	var head [32]byte
	for i, e := range events {
		r := Record{
			Event: e.bounded(), Seq: uint64(i + 1), Prev: head, BootID: boot,
			Wall: time.Date(2026, 11, 24, 12, 0, i, 5, time.UTC), Boot: 86_400*time.Second + time.Duration(i),
		}
		r.Hash = hashOf(r.appendBody(nil))
		head = r.Hash
		log = append(log, r)
	}
	return log
}

func TestLogsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Logs, one entry a line: the hash of a line is the SHA-256 of what comes before `,\"hash\"`, and a closing brace; prev is that of the line before. " +
		"A log that succeeds has that many entries and that head; torn says whether an unfinished line follows."}
	records := vectorLog()
	var lines []string
	for _, r := range records {
		lines = append(lines, string(r.Line())+"\n")
	}
	add := func(class, name, log string) {
		c := vectors.Case{Name: name, In: vectors.Values{"log": log}, Error: class}
		if class == "" {
			out, err := judgeLog(t, c.In)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c.Out = out
		}
		file.Cases = append(file.Cases, c)
	}
	whole := strings.Join(lines, "")
	add("", "five entries", whole)
	add("", "no entry", "")
	add("", "a torn last line", whole+`{"seq":6,"prev":"`)
	add("", "a last line without its newline", strings.TrimSuffix(whole, "\n"))
	edit := func(class, name string, line int, old, now string) {
		if !strings.Contains(lines[line], old) {
			t.Fatalf("%s: line %d has no %s", name, line+1, old)
		}
		changed := append([]string(nil), lines...)
		changed[line] = strings.Replace(lines[line], old, now, 1)
		add(class, name, strings.Join(changed, ""))
	}
	edit("edited", "another status", 3, `"status":3`, `"status":0`)
	edit("edited", "another verb", 2, "ssh.tail_logs", "ssh.tail_logz")
	edit("edited", "another time", 1, "12:00:01", "12:00:02")
	edit("edited", "another hash", 0, `"hash":"`+fmt.Sprintf("%x", records[0].Hash[:2]), `"hash":"ffff`)
	edit("unsealed", "no hash", 0, `,"hash":"`, `,"hush":"`)
	edit("unsealed", "an empty line", 1, lines[1], "\n")
	edit("unsealed", "something else", 1, lines[1], "rotated\n")
	edit("number", "a line left out", 2, lines[2], "")
	edit("number", "a line twice", 2, lines[2], lines[2]+lines[2])
	add("number", "two lines swapped", lines[0]+lines[2]+lines[1]+lines[3]+lines[4])
	add("number", "a beginning left out", strings.Join(lines[1:], ""))
	resealed := func(class, name string, at int, change func(*Record)) {
		r := records[at]
		change(&r)
		r.Hash = hashOf(r.appendBody(nil))
		edit(class, name, at, lines[at], string(r.Line())+"\n")
	}
	resealed("chain", "a line rewritten with a hash that fits", 2, func(r *Record) { r.Verb = "ssh.other" })
	resealed("number", "a line rewritten with another number", 2, func(r *Record) { r.Seq = 4 })
	resealed("chain", "a first line that follows something", 0, func(r *Record) { r.Prev = [32]byte{1} })
	body := func(class, name string, at int, old, now string) {
		b := string(records[at].appendBody(nil))
		if !strings.Contains(b, old) {
			t.Fatalf("%s: line %d has no %s", name, at+1, old)
		}
		b = strings.Replace(b, old, now, 1)
		edit(class, name, at, lines[at], string(appendHash([]byte(b), hashOf([]byte(b))))+"\n")
	}
	body("form", "a space", 1, `,"kind"`, `, "kind"`)
	body("form", "a member in upper case", 1, `"kind"`, `"KIND"`)
	body("form", "a member twice", 1, `"kind":"open"`, `"kind":"x","kind":"open"`)
	body("form", "a member that there is not", 1, `"kind":"open"`, `"kind":"open","more":1`)
	body("form", "a character escaped that need not be", 1, `"open"`, `"\u006fpen"`)
	body("form", "two members swapped", 1, `"session":"s-4f2a9c1b","recipient":"vendor-b"`, `"recipient":"vendor-b","session":"s-4f2a9c1b"`)
	body("not a record", "no JSON", 1, `"kind":`, `"kind"`)
	body("not a record", "a text for a number", 1, `"seq":2`, `"seq":"2"`)
	body("not a record", "half a hash in prev", 1, records[1].prevText(), records[1].prevText()[:32])
	body("not a record", "no time", 1, "2026-11-24", "2026-13-24")
	body("not a record", "seconds before the boot", 1, `"boot_s":`, `"boot_s":-`)
	vectors.Check(t, "../../..", "audit", file, judgeLog, vectors.Classes{
		"edited": errEdited.Error(), "unsealed": errUnsealed.Error(), "number": "its number is", "chain": "does not follow",
		"form": errOtherForm.Error(), "not a record": errNotRecord.Error(),
	})
}

func (r Record) prevText() string { return fmt.Sprintf("%x", r.Prev) }

func judgeLog(_ *testing.T, in vectors.Values) (vectors.Values, error) {
	report, err := Verify(strings.NewReader(in["log"]))
	if bad, ok := errors.AsType[*BadEntry](err); ok && bad.Line != report.Entries+1 {
		return nil, fmt.Errorf("line %d is called bad after %d good ones", bad.Line, report.Entries)
	}
	if err != nil {
		return nil, err
	}
	return vectors.Values{"entries": fmt.Sprint(report.Entries), "head": vectors.Hex(report.Head[:]), "torn": fmt.Sprint(report.Torn)}, nil
}

func TestAHostileLogCostsLittle(t *testing.T) {
	inputs := vectors.Load(t, "../../..", "audit").Inputs(t, "log", false)
	most := vectors.HoldAllocations(t, inputs, 10, func(b []byte) { _, _ = Verify(bytes.NewReader(b)) })
	t.Logf("at most %d bytes beyond four times the input", most)
}
