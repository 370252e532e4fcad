package report

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/checkpoint"
)

func seeded(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

var (
	identity, logKey  = seeded(1), seeded(2)
	vendor, agent     = seeded(3), seeded(4)
	mallory           = seeded(5)
	rid, childRID     = wire.RendezvousID{7}, wire.RendezvousID{8}
	began             = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	session, narrowed = "s-parent", "s-child"
)

// ledger is a daemon that keeps its record as it likes: it has all of the
// daemon's keys, and writes lines of its own.
type ledger struct {
	lines    []Line
	receipts []Receipt
	n        byte
}

func (l *ledger) add(e Line) *Line {
	e.Seq = uint64(len(l.lines) + 1)
	e.Time = began.Add(time.Duration(len(l.lines)) * time.Second)
	if e.Session == "" {
		e.Session = session
	}
	l.lines = append(l.lines, e)
	return &l.lines[len(l.lines)-1]
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// call is one call as an honest daemon enters it, and the receipt of it.
func (l *ledger) call(by ed25519.PrivateKey, cause call.Cause) Receipt {
	l.n++
	r := Receipt{Daemon: public(identity), RID: rid, Key: public(by), TH2: [32]byte{9}, Came: began.Add(time.Duration(l.n) * time.Minute)}
	e := Line{Session: session, RecipientKey: hex.EncodeToString(r.Key), Verb: "ssh.tail_logs", Params: []Param{{Name: "service", Value: "web"}}}
	if by.Equal(agent) {
		r.RID, e.Session, e.Parent = childRID, narrowed, session
	}
	req := call.Request{ID: call.ID{l.n}, Challenge: call.Challenge{l.n}, Verb: e.Verb, Params: []call.Param{{Name: "service", Value: "web"}}}
	r.Request = req.Append(nil)
	r.Signature = call.SignRequest(by, r.RID, r.TH2, r.Request)
	e.RID, e.Call = hex.EncodeToString(r.RID[:]), req.ID.String()
	end := call.Result{ID: req.ID, Cause: cause, Status: 0, Stdout: call.Digest{Bytes: 5, SHA256: [32]byte{1}}}
	intent := e
	intent.Kind, intent.Request, intent.Signature, intent.TH2 = "call", r.Request, r.Signature, r.TH2[:]
	if cause == call.Denied || cause == call.Stale {
		end.Stdout = call.Digest{}
		intent.Kind = "deny"
	} else {
		l.add(intent)
	}
	r.End = end.Append(nil)
	r.EndSig = call.SignResult(identity, r.RID, r.Hash(), r.End)
	outcome := e
	outcome.Kind, outcome.Params = "result", nil
	if intent.Kind == "deny" {
		outcome = intent
	}
	outcome.Cause, outcome.Status, outcome.End, outcome.EndSignature = cause.String(), new(int), r.End, r.EndSig
	outcome.Stdout, outcome.Stderr = digestOf(end.Stdout), digestOf(end.Stderr)
	l.add(outcome)
	if !by.Equal(agent) {
		l.receipts = append(l.receipts, r)
	}
	return r
}

func digestOf(d call.Digest) *Digest {
	return &Digest{Bytes: d.Bytes, SHA256: hex.EncodeToString(d.SHA256[:])}
}

// honest is a session with a bit of everything.
func honest() *ledger {
	l := new(ledger)
	l.add(Line{Kind: "open", RID: hex.EncodeToString(rid[:])})
	l.call(vendor, call.Exited)
	l.call(vendor, call.Denied)
	l.call(agent, call.Exited)
	l.call(vendor, call.Stale)
	l.call(vendor, call.Exited)
	l.add(Line{Kind: "revoke", Cause: "revoked"})
	return l
}

// text is a line as the log writes it, as far as anybody here reads it.
func (e Line) text(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

// report is what the daemon gives out of it: signed, and proved to a log that
// has exactly these lines.
func (l *ledger) report(t *testing.T) *Report {
	t.Helper()
	endorsed := checkpoint.Endorse(identity, public(logKey))
	signer, err := endorsed.Signer(wire.SigningKeyOf(logKey))
	if err != nil {
		t.Fatal(err)
	}
	var stored storedHashes
	r := &Report{RID: rid, Session: session, Made: began.Add(time.Hour), Endorsement: endorsed.Text()}
	for i, e := range l.lines {
		e.Seq = uint64(i + 1)
		line := e.text(t)
		hashes, err := tlog.StoredHashes(int64(i), []byte(line), stored)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		r.Entries = append(r.Entries, Entry{Line: line})
	}
	root, err := tlog.TreeHash(int64(len(l.lines)), stored)
	if err != nil {
		t.Fatal(err)
	}
	point, err := checkpoint.Checkpoint{Size: int64(len(l.lines)), Root: root}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	r.Checkpoint = point.Note
	for i := range r.Entries {
		if r.Entries[i].Proof, err = tlog.ProveRecord(int64(len(l.lines)), int64(i), stored); err != nil {
			t.Fatal(err)
		}
	}
	r.Sign(identity)
	return r
}

func (l *ledger) check(t *testing.T) *Checked {
	t.Helper()
	r := l.report(t)
	if err := r.Verify(); err != nil {
		t.Fatal(err)
	}
	return Check(r, l.receipts)
}

// bad is the texts of what was found.
func (c *Checked) bad() (texts []string) {
	for _, f := range c.Findings {
		if f.Bad {
			texts = append(texts, f.Text)
		}
	}
	return texts
}

func TestAnHonestReportAgreesWithEveryReceipt(t *testing.T) {
	c := honest().check(t)
	if !c.Agrees() || !c.Final || c.Matched != 4 || c.Receipts != 4 || c.Calls != 5 || len(c.Findings) > 0 {
		t.Errorf("got %+v", c)
	}
}

// The daemon's side has all of its keys and writes its log anew: what the
// recipient holds shows it each time.
func TestTheIssuerCannotRewriteTheRecord(t *testing.T) {
	at := func(l *ledger, kind string, n int) int {
		for i, e := range l.lines {
			if e.Kind == kind {
				if n--; n == 0 {
					return i
				}
			}
		}
		t.Fatalf("there are fewer entries %s", kind)
		return -1
	}
	drop := func(l *ledger, from, to int) { l.lines = slices.Delete(l.lines, from, to) }
	resign := func(l *ledger, i int, change func(*call.Result)) {
		e := &l.lines[i]
		end, err := call.ParseResult(e.End)
		if err != nil {
			t.Fatal(err)
		}
		change(&end)
		r := l.receipts[0]
		e.End = end.Append(nil)
		e.EndSignature = call.SignResult(identity, rid, r.Hash(), e.End)
		e.Status, e.Cause = new(int), end.Cause.String()
		*e.Status = int(end.Status)
		e.Stdout, e.Stderr = digestOf(end.Stdout), digestOf(end.Stderr)
	}
	added := func(l *ledger, by ed25519.PrivateKey, key ed25519.PublicKey) {
		own := l.receipts
		l.call(by, call.Exited)
		l.receipts = own
		for i := len(l.lines) - 2; i < len(l.lines); i++ {
			l.lines[i].RecipientKey = hex.EncodeToString(key)
		}
		n := len(l.lines) // before the session's end
		l.lines[n-3], l.lines[n-2], l.lines[n-1] = l.lines[n-2], l.lines[n-1], l.lines[n-3]
	}
	for name, c := range map[string]struct {
		rewrite func(*ledger)
		found   string
	}{
		"a call is left out":          {func(l *ledger) { i := at(l, "call", 1); drop(l, i, i+2) }, "does not have it: exited"},
		"a refusal is left out":       {func(l *ledger) { i := at(l, "deny", 1); drop(l, i, i+1) }, "does not have it: denied"},
		"the last call is left out":   {func(l *ledger) { i := at(l, "call", 3); drop(l, i, i+2) }, "does not have it: exited"},
		"an outcome is left out":      {func(l *ledger) { i := at(l, "result", 3); drop(l, i, i+1) }, "does not have it: exited"},
		"an intent is left out":       {func(l *ledger) { i := at(l, "call", 1); drop(l, i, i+1) }, "a call that the report does not have"},
		"the status is another":       {func(l *ledger) { *l.lines[at(l, "result", 1)].Status = 3 }, "signed another end than the entry says"},
		"the cause is another":        {func(l *ledger) { l.lines[at(l, "result", 1)].Cause = "failed" }, "signed another end than the entry says"},
		"the output is another":       {func(l *ledger) { l.lines[at(l, "result", 1)].Stdout.Bytes = 6 }, "signed another end than the entry says"},
		"a refusal is a run":          {func(l *ledger) { l.lines[at(l, "deny", 1)].Kind = "result" }, "a call that the report does not have"},
		"the end is signed anew":      {func(l *ledger) { resign(l, at(l, "result", 1), func(r *call.Result) { r.Status = 1 }) }, "another end of this call to you"},
		"the end is not signed":       {func(l *ledger) { l.lines[at(l, "result", 1)].EndSignature = nil }, "not the one the daemon signed"},
		"an end stands twice":         {func(l *ledger) { l.lines = append(l.lines, l.lines[at(l, "result", 1)]) }, "a second end"},
		"the verb is another":         {func(l *ledger) { l.lines[at(l, "call", 1)].Verb = "ssh.restart" }, "signed another call than the entry says"},
		"a parameter is another":      {func(l *ledger) { l.lines[at(l, "call", 1)].Params = []Param{{Name: "service", Value: "db"}} }, "signed another call than the entry says"},
		"a parameter is left out":     {func(l *ledger) { l.lines[at(l, "call", 1)].Params = nil }, "signed another call than the entry says"},
		"a value is cut without hash": {func(l *ledger) { l.lines[at(l, "call", 1)].Params = []Param{{Name: "service", Value: "w"}} }, "signed another call than the entry says"},
		"a value has another's hash": {func(l *ledger) {
			sum := sha256.Sum256([]byte("db"))
			l.lines[at(l, "call", 1)].Params = []Param{{Name: "service", Value: "w", Length: 2, SHA256: hex.EncodeToString(sum[:])}}
		}, "signed another call than the entry says"},
		"a call is added":                {func(l *ledger) { added(l, mallory, public(vendor)) }, "not signed by the recipient's key"},
		"a call is added by another key": {func(l *ledger) { added(l, mallory, public(mallory)) }, "not signed by the recipient's key"},
		"a call of the agent is the vendor's": {func(l *ledger) {
			for i := range l.lines {
				if l.lines[i].Session == narrowed {
					l.lines[i].Session, l.lines[i].Parent = session, ""
				}
			}
		}, "of no key who asked"},
		"the agent's call is not the agent's": {func(l *ledger) {
			for i := range l.lines {
				if l.lines[i].Session == narrowed && l.lines[i].Kind == "call" {
					l.lines[i].Signature = call.SignRequest(mallory, childRID, [32]byte{9}, l.lines[i].Request)
				}
			}
		}, "not signed by the recipient's key"},
		"a note that nobody signs": {func(l *ledger) { l.lines[0].Reason = "x" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := honest()
			c.rewrite(l)
			checked := l.check(t)
			if c.found == "" {
				if !checked.Agrees() {
					t.Errorf("what nobody signed is held against it: %q", checked.bad())
				}
				return
			}
			if checked.Agrees() || !strings.Contains(strings.Join(checked.bad(), "\n"), c.found) {
				t.Errorf("found %q, and not %q", checked.bad(), c.found)
			}
		})
	}
}

// What need not be in a report, and how often.
func TestWhatAReportNeedNotHaveIsToldFromWhatWasLeftOut(t *testing.T) {
	over := func(l *ledger, n int) Receipt { // a call over the rate: answered, and not entered
		r := l.call(vendor, call.Denied)
		l.lines = l.lines[:len(l.lines)-1]
		end, _ := call.ParseResult(r.End)
		end.Cause = call.Limit
		r.End = end.Append(nil)
		r.EndSig = call.SignResult(identity, rid, r.Hash(), r.End)
		l.receipts[len(l.receipts)-1] = r
		if n > 0 {
			l.add(Line{Kind: "deny", Decision: "deny", Cause: "limit", Count: n})
		}
		return r
	}
	t.Run("refused for the rate", func(t *testing.T) {
		l := honest()
		over(l, 0)
		over(l, 2)
		if c := l.check(t); !c.Agrees() {
			t.Errorf("two were counted: %q", c.bad())
		}
		over(l, 0)
		if c := l.check(t); len(c.bad()) != 1 {
			t.Errorf("two of three were counted: %q", c.bad())
		}
	})
	t.Run("not logged", func(t *testing.T) {
		l := honest()
		r := l.call(vendor, call.Exited)
		l.lines = l.lines[:len(l.lines)-2]
		end, _ := call.ParseResult(r.End)
		end.Cause = call.AuditFailure
		r.End = end.Append(nil)
		r.EndSig = call.SignResult(identity, rid, r.Hash(), r.End)
		l.receipts[len(l.receipts)-1] = r
		if c := l.check(t); !c.Agrees() || len(c.Findings) != 1 {
			t.Errorf("the daemon said so itself: %+v", c.Findings)
		}
	})
	t.Run("later", func(t *testing.T) {
		l := honest()
		l.lines = l.lines[:len(l.lines)-1] // it goes on
		late := l.call(vendor, call.Exited)
		l.lines = l.lines[:len(l.lines)-2]
		if c := l.check(t); !c.Agrees() || c.Final {
			t.Errorf("it came after the report: %+v", c)
		}
		late.Came = began.Add(time.Second) // long before those that are there
		l.receipts[len(l.receipts)-1] = late
		if c := l.check(t); c.Agrees() {
			t.Error("it was there before others that are in the report")
		}
	})
	t.Run("another client's", func(t *testing.T) {
		l := honest()
		l.receipts = l.receipts[1:]
		if c := l.check(t); !c.Agrees() || len(c.Findings) != 1 || c.Matched != 3 {
			t.Errorf("it is signed by the recipient: %+v", c.Findings)
		}
	})
	t.Run("another daemon's", func(t *testing.T) {
		l := honest()
		for i, r := range l.receipts {
			r.Daemon = public(mallory)
			r.EndSig = call.SignResult(mallory, rid, r.Hash(), r.End)
			l.receipts[i] = r
		}
		if c := l.check(t); c.Agrees() {
			t.Error("another daemon's report agrees")
		}
	})
	t.Run("no receipt", func(t *testing.T) {
		l := honest()
		r := l.receipts[0]
		r.EndSig = bytes.Clone(r.EndSig)
		r.EndSig[0] ^= 1
		l.receipts = append(l.receipts, r)
		if c := l.check(t); !c.Agrees() || c.Matched != 4 || len(c.Findings) != 1 {
			t.Errorf("what is no receipt proves nothing: %+v", c.Findings)
		}
	})
}

// Without the daemon's keys nothing can be changed at all.
func TestNoByteOfAReportCanBeChanged(t *testing.T) {
	r := honest().report(t)
	text, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Read(text)
	if err != nil || whole.Verify() != nil {
		t.Fatal(err, whole.Verify())
	}
	tried := 0
	for i := 0; i < len(text); i += flipEvery {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		got, err := Read(changed)
		if err != nil {
			continue
		}
		tried++
		if got.Verify() == nil {
			if again, err := got.JSON(); err != nil || !bytes.Equal(again, text) {
				t.Errorf("byte %d can be changed: %.60q", i, changed[max(0, i-20):])
			}
		}
	}
	if tried < len(text)/flipEvery/4 {
		t.Errorf("only %d of %d changes were read at all", tried, len(text))
	}
}

func TestAReportIsHeldToItsDaemonAndItsLog(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Report)
		want   error
	}{
		"signed by another daemon":      {func(r *Report) { r.Sign(mallory) }, ErrCheckpoint},
		"an entry less":                 {func(r *Report) { r.Entries = r.Entries[1:] }, ErrSignature},
		"an entry's proof is another's": {func(r *Report) { r.Entries[0].Proof = r.Entries[1].Proof; r.Sign(identity) }, ErrProof},
		"an entry twice":                {func(r *Report) { r.Entries = append(r.Entries, r.Entries[0]); r.Sign(identity) }, ErrProof},
		"an entry of another session":   {func(r *Report) { r.Session = "s-x"; r.Sign(identity) }, ErrProof},
		"a line that is not in the log": {func(r *Report) {
			r.Entries[0].Line = strings.Replace(r.Entries[0].Line, "open", "0pen", 1)
			r.Sign(identity)
		}, ErrProof},
		"a checkpoint of another key": {func(r *Report) {
			r.Endorsement = checkpoint.Endorse(identity, public(mallory)).Text()
			r.Sign(identity)
		}, ErrCheckpoint},
	} {
		r := honest().report(t)
		c.change(r)
		if err := r.Verify(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALineIsReadInOneWay(t *testing.T) {
	good := honest().lines[1].text(t)
	if _, err := readLine(good); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		"a member twice":           strings.Replace(good, `"verb":`, `"verb":"x","verb":`, 1),
		"in another case":          strings.Replace(good, `"verb":`, `"VERB":`, 1),
		"a member in another case": strings.Replace(good, `"verb":`, `"Verb":"x","verb":`, 1),
		"twice inside":             strings.Replace(good, `"name":`, `"name":"x","name":`, 1),
		"something behind it":      good + "{}",
		"a control character":      strings.Replace(good, "web", "w\teb", 1),
		"not ASCII":                strings.Replace(good, "web", "wéb", 1),
		"a list":                   "[" + good + "]",
		"no kind":                  strings.Replace(good, `"kind":"call"`, `"kind":""`, 1),
		"deep":                     strings.Replace(good, `"params":[`, `"params":[[[[[`, 1),
		"nothing":                  "",
	} {
		if _, err := readLine(line); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

func TestABlockIsReadOutOfItsTextAndOfNoOther(t *testing.T) {
	r := honest().report(t)
	before, after := "# Session\n\n| a | b |\n```\n", "```\n"
	r.Text = TextHash(before, after)
	r.Sign(identity)
	block, err := r.Block()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"as it was made":  before + block + after,
		"with CR LF":      strings.ReplaceAll(before+block+after, "\n", "\r\n"),
		"with space":      strings.ReplaceAll(before+block+after, "\n", " \n") + "\n\n",
		"without its end": strings.TrimSpace("\n\n" + before + block + after),
	} {
		got, err := Read([]byte(text))
		if err != nil || got.Verify() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"another word": strings.Replace(before, "Session", "session", 1) + block + after,
		"a line more":  before + "and\n" + block + after,
		"moved":        block + before + after,
		"alone":        block,
	} {
		if _, err := Read([]byte(text)); !errors.Is(err, ErrText) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read([]byte(before + strings.ReplaceAll(block, endBlock, "") + after)); err == nil {
		t.Error("a block without its end is read")
	}
}

func TestAReceiptIsVerifiedWhenItIsRead(t *testing.T) {
	r := honest().receipts[0]
	line, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseReceipt(line)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
		t.Fatalf("%v\n%v\n%v", err, got, r)
	}
	for name, change := range map[string]func(*Receipt){
		"another daemon":  func(r *Receipt) { r.Daemon = public(mallory) },
		"another key":     func(r *Receipt) { r.Key = public(mallory) },
		"another session": func(r *Receipt) { r.RID[0]++ },
		"another th2":     func(r *Receipt) { r.TH2[0]++ },
		"another request": func(r *Receipt) { r.Request = bytes.Replace(r.Request, []byte("web"), []byte("api"), 1) },
		"another end":     func(r *Receipt) { r.End = bytes.Clone(r.End); r.End[20]++ },
	} {
		changed := r
		change(&changed)
		line, err := changed.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseReceipt(line); err == nil {
			t.Errorf("%s: it is a receipt", name)
		}
	}
}
