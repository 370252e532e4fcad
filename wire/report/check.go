package report

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"openscope/wire"
	"openscope/wire/call"
)

// Finding is something to say of a report: that it does not agree with what was
// signed, or, where Bad is not set, why what is missing need not be there.
type Finding struct {
	Bad  bool   `json:"bad"`
	Seq  uint64 `json:"seq,omitempty"`  // of the entry
	Call string `json:"call,omitempty"` // its id
	Text string `json:"text"`
}

// Checked is what [Check] found.
type Checked struct {
	Entries  int  `json:"entries"`
	Calls    int  `json:"calls"`    // in the report, those of children with them
	Receipts int  `json:"receipts"` // of the session
	Matched  int  `json:"matched"`  // receipts that are in the report byte for byte
	Final    bool `json:"final"`    // the session had ended, and nothing more of it can come
	Findings []Finding
}

// Agrees reports whether nothing bad was found.
func (c *Checked) Agrees() bool {
	for _, f := range c.Findings {
		if f.Bad {
			return false
		}
	}
	return true
}

// laterBy is how much younger than the newest receipt in the report one has to
// be, at the most, to have come after it: answers to calls that run side by side
// arrive in another order than they were logged in.
const laterBy = 10 * time.Second

// Check holds a report that was verified to itself and to the receipts of its
// session: every request in it must be signed by the recipient, every outcome
// by the daemon, each entry must say what was signed, and every receipt must be
// there.
func Check(r *Report, receipts []Receipt) *Checked {
	c := &checking{
		report: r, requests: make(map[string][32]byte), outcomes: make(map[[32]byte]outcome),
		Checked: Checked{Entries: len(r.Entries), Receipts: len(receipts), Findings: []Finding{}},
	}
	for _, receipt := range receipts {
		if c.key == nil {
			c.key = receipt.Key
		}
	}
	for _, e := range r.Entries {
		l, err := readLine(e.Line)
		if err != nil {
			c.bad(l, "%v", err)
			continue
		}
		c.entry(l)
	}
	// What still ran at the end is dead, and its outcome logged, within a second.
	c.Final = !c.over.IsZero() && (len(c.open()) == 0 || r.Made.Sub(c.over) > laterBy)
	c.hold(receipts)
	return &c.Checked
}

type checking struct {
	Checked
	report   *Report
	key      ed25519.PublicKey // the recipient's own, by the receipts
	requests map[string][32]byte
	outcomes map[[32]byte]outcome // by the request's hash
	intents  []Line
	overRate int       // calls refused for the rate, entered by their number
	over     time.Time // when the session ended, by the daemon's clock
}

// outcome is how a call of the report ended.
type outcome struct {
	line    Line
	matched bool
}

func (c *checking) bad(l Line, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{Bad: true, Seq: l.Seq, Call: l.Call, Text: fmt.Sprintf(format, args...)})
}

func (c *checking) note(l Line, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{Seq: l.Seq, Call: l.Call, Text: fmt.Sprintf(format, args...)})
}

func (c *checking) entry(l Line) {
	switch l.Kind {
	case "expire", "revoke", "close":
		if c.over.IsZero() && l.Session == c.report.Session {
			c.over = l.Time
		}
		return
	case "call":
		c.Calls++
		c.intents = append(c.intents, l)
	case "deny":
		if l.Call == "" && l.Count > 0 {
			c.overRate += l.Count
			return
		}
		c.Calls++
	case "result":
	default:
		return
	}
	c.request(l)
	c.outcome(l)
}

// request holds what an entry says of a request to what the recipient signed.
func (c *checking) request(l Line) {
	if l.Kind == "result" {
		return // its request stands with the intent
	}
	rid, key, ok := c.signer(l)
	if !ok {
		c.bad(l, "it says of no key who asked")
		return
	}
	if len(l.TH2) != 32 || !call.VerifyRequest(key, rid, [32]byte(l.TH2), l.Request, l.Signature) {
		c.bad(l, "the call is not signed by the recipient's key: it was added, or changed")
		return
	}
	req, err := call.ParseRequest(l.Request)
	if err != nil || req.ID.String() != l.Call || req.Verb != l.Verb || !sameParams(req.Params, l.Params) {
		c.bad(l, "the recipient signed another call than the entry says")
		return
	}
	c.requests[l.Call] = call.RequestHash(l.Request, l.Signature)
}

// signer is whose signature an entry must have: the recipient's own, of whom the
// receipts know the key; of a child's, the key it was given to.
func (c *checking) signer(l Line) (wire.RendezvousID, ed25519.PublicKey, bool) {
	rid, err := hex.DecodeString(l.RID)
	if err != nil || len(rid) != len(wire.RendezvousID{}) {
		return wire.RendezvousID{}, nil, false
	}
	if own := wire.RendezvousID(rid) == c.report.RID; own && c.key != nil {
		return c.report.RID, c.key, true
	} else if own != (l.Session == c.report.Session) {
		return wire.RendezvousID{}, nil, false
	}
	key, err := hex.DecodeString(l.RecipientKey)
	return wire.RendezvousID(rid), key, err == nil && len(key) == ed25519.PublicKeySize
}

// sameParams compares what was signed with what is shown: byte for byte, or by
// the hash of a value that is shown in part.
func sameParams(signed []call.Param, shown []Param) bool {
	if len(signed) != len(shown) {
		return false
	}
	for i, p := range signed {
		s := shown[i]
		if p.Name != s.Name {
			return false
		}
		sum := sha256.Sum256([]byte(p.Value))
		if s.SHA256 == "" && p.Value != s.Value || s.SHA256 != "" && (s.SHA256 != hex.EncodeToString(sum[:]) || s.Length != len(p.Value)) {
			return false
		}
	}
	return true
}

// outcome holds what an entry says of a call's end to what the daemon signed.
func (c *checking) outcome(l Line) {
	if l.Kind != "result" && l.Kind != "deny" {
		return
	}
	request, ok := c.requests[l.Call]
	rid, err := hex.DecodeString(l.RID)
	if l.Kind == "result" && l.RID == "" {
		rid, err = c.report.RID[:], nil
	}
	if !ok || err != nil || len(rid) != len(wire.RendezvousID{}) {
		c.bad(l, "the end of a call that the report does not have")
		return
	}
	if !call.VerifyResult(c.report.Daemon, wire.RendezvousID(rid), request, l.End, l.EndSignature) {
		c.bad(l, "the end is not the one the daemon signed for this call")
		return
	}
	end, err := call.ParseResult(l.End)
	if err != nil || !says(l, end) {
		c.bad(l, "the daemon signed another end than the entry says")
		return
	}
	if _, twice := c.outcomes[request]; twice {
		c.bad(l, "a second end of one call")
		return
	}
	c.outcomes[request] = outcome{line: l}
}

// says reports whether the entry tells what END does.
func says(l Line, end call.Result) bool {
	if end.ID.String() != l.Call || end.Cause.String() != l.Cause {
		return false
	}
	if l.Kind == "deny" {
		return end.Stdout.Bytes == 0 && end.Stderr.Bytes == 0
	}
	return l.Status != nil && int32(*l.Status) == end.Status && l.Stdout.is(end.Stdout) && l.Stderr.is(end.Stderr)
}

func (d *Digest) is(signed call.Digest) bool {
	return d != nil && d.Bytes == signed.Bytes && d.SHA256 == hex.EncodeToString(signed.SHA256[:])
}

// open is the calls that began and of whose end the report has nothing.
func (c *checking) open() (open []Line) {
	for _, l := range c.intents {
		if _, ended := c.outcomes[c.requests[l.Call]]; !ended {
			open = append(open, l)
		}
	}
	return open
}

// hold holds the report to the receipts.
func (c *checking) hold(receipts []Receipt) {
	var missing []Receipt
	var newest time.Time
	for _, r := range receipts {
		end, err := call.ParseResult(r.End)
		if err == nil {
			err = r.Verify()
		}
		if err != nil {
			c.note(Line{}, "a receipt of these is none: %v", err)
			continue
		}
		l := Line{Call: end.ID.String()}
		o, ok := c.outcomes[r.Hash()]
		switch {
		case !r.Daemon.Equal(c.report.Daemon):
			c.bad(l, "the report is another daemon's than the one that signed this result")
		case !ok:
			missing = append(missing, r)
		case !bytes.Equal(o.line.End, r.End) || !bytes.Equal(o.line.EndSignature, r.EndSig):
			c.bad(o.line, "the daemon signed another end of this call to you: %s", endText(end))
		default:
			c.Matched++
			o.matched = true
			c.outcomes[r.Hash()] = o
			if r.Came.After(newest) {
				newest = r.Came
			}
		}
	}
	for _, r := range missing {
		c.missing(r, newest)
	}
	c.unmatched()
}

// missing is about a receipt that the report has nothing of.
func (c *checking) missing(r Receipt, newest time.Time) {
	end, _ := call.ParseResult(r.End) // hold has parsed it
	l := Line{Call: end.ID.String()}
	switch {
	case end.Cause == call.AuditFailure:
		c.note(l, "not in the report: the daemon told you that it could not log this call")
	case end.Cause == call.Limit && end.Stdout.Bytes+end.Stderr.Bytes == 0 && c.overRate > 0:
		c.overRate--
		c.note(l, "refused for the rate: such calls are entered by their number")
	case !c.Final && r.Came.After(newest.Add(-laterBy)):
		c.note(l, "not in the report: the session went on when it was made, and this may be later")
	default:
		c.bad(l, "you hold the daemon's signed result of this call, and the report does not have it: %s", endText(end))
	}
}

// unmatched is about what the report has and no receipt tells of.
func (c *checking) unmatched() {
	for _, l := range c.open() {
		c.note(l, "it began, and the report has no end of it")
	}
	if c.key == nil {
		return
	}
	for _, o := range c.outcomes {
		if !o.matched && o.line.Session == c.report.Session {
			c.note(o.line, "signed by your key, and not among these receipts: another program of yours, or its answer was lost")
		}
	}
}

func endText(end call.Result) string {
	return fmt.Sprintf("%v, status %d, %d and %d bytes", end.Cause, end.Status, end.Stdout.Bytes, end.Stderr.Bytes)
}
