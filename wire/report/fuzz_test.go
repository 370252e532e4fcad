package report

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzReport(f *testing.F) {
	t := new(testing.T)
	r := honest().report(t)
	text, err := r.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	block, err := r.Block()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(block))
	f.Add([]byte(honest().lines[1].text(t)))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A line that is read is one JSON object with one meaning.
		if l, err := readLine(string(data)); err == nil {
			var any map[string]json.RawMessage
			if json.Unmarshal(data, &any) != nil || l.Seq == 0 {
				t.Fatalf("%q is read", data)
			}
		}
		got, err := Read(data)
		if err != nil || got.Verify() != nil {
			return
		}
		// Nobody but the daemon of this test has signed anything.
		again, err := got.JSON()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("another report is verified: %q", data)
		}
		Check(got, nil)
	})
}

func FuzzReceipt(f *testing.F) {
	for _, r := range honest().receipts {
		line, err := r.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseReceipt(line)
		if err != nil {
			return
		}
		again, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := ParseReceipt(again); err != nil || !bytes.Equal(second.End, r.End) || !bytes.Equal(second.Request, r.Request) {
			t.Fatalf("%q is read as %q", line, again)
		}
	})
}
