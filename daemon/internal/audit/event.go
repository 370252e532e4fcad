package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"unicode/utf8"
)

// How much of an event is kept. An event is cut down to these and never
// refused for its size: a stranger's long parameter must not be able to stop
// the log.
const (
	MaxText   = 1 << 10  // bytes of one text or parameter value
	MaxBytes  = 64 << 10 // bytes of one of Request, Signature, TH2, End, EndSignature; a CALL record has at most 16 KiB
	MaxParams = 255      // what a CALL can carry

	// maxLine bounds a line, its newline included: the largest event with
	// every byte of it escaped to six stays below.
	maxLine = 4 << 20
)

// KindTorn is the kind of the entry that says that an unfinished last line was
// set aside when the log was opened. All other kinds are the caller's.
const KindTorn = "torn"

// Kinds are those that the entries of a daemon's log have.
var Kinds = []string{
	"open", "refuse", "connect", "disconnect", "resume", "confirm", "claim", "call", "approve", "deny", "result", "extend", "revoke", "expire",
	"close", "lockdown", "start", "stop", "reload", "copy", "recipient-add", "recipient-remove", KindTorn, KindRotate,
}

// Event is what happened. Empty fields are left out of the line. Text may hold
// anything, from anybody: what is not printable ASCII is escaped when it is
// written, and what is longer than [MaxText] is cut.
type Event struct {
	// Kind is one of [Kinds]. A copy is the second place of the log that failed, or
	// is well again.
	Kind string `json:"kind"`

	Issuer       *Issuer `json:"issuer"`
	Session      string  `json:"session"`
	Parent       string  `json:"parent"` // session that this one was narrowed from
	Connection   string  `json:"connection"`
	Recipient    string  `json:"recipient"`     // alias
	RecipientKey string  `json:"recipient_key"` // hex
	From         string  `json:"from"`          // address, as the relay told it

	Call   string  `json:"call"`
	Verb   string  `json:"verb"`
	Params []Param `json:"params"`

	Decision string  `json:"decision"`
	Rule     string  `json:"rule"` // what decided, like grants.yaml:12
	Cause    string  `json:"cause"`
	Reason   string  `json:"reason"`
	Status   *int    `json:"status"`
	Stdout   *Digest `json:"stdout"`
	Stderr   *Digest `json:"stderr"`
	// Count is how many events this entry stands for, where one line a second
	// covers a flood.
	Count int `json:"count"`

	// RID is the session's rendezvous id in hex: with it the signatures below
	// can be verified from the log alone.
	RID string `json:"rid"`
	// Request is the body of the CALL as it was received, with the recipient's
	// Signature over it and the TH2 it is bound to (wire/README.md §6): base64
	// in the line. End and EndSignature are the END that answered it.
	Request      []byte `json:"request"`
	Signature    []byte `json:"signature"`
	TH2          []byte `json:"th2"`
	End          []byte `json:"end"`
	EndSignature []byte `json:"end_signature"`
}

// Issuer is for whom it happened.
type Issuer struct {
	UID   uint32 `json:"uid"`
	User  string `json:"user"`
	Agent string `json:"agent"`
}

// Digest stands for a stream of output: its length and its SHA-256 in hex.
type Digest struct {
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Param is one parameter of a call. Length and SHA256 are set by Append, and
// only where Value is not all of it byte for byte: it was longer than
// [MaxText], or it was not UTF-8. They are then those of the whole value.
type Param struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Length int    `json:"length"`
	SHA256 string `json:"sha256"`
}

// bounded is the event with every part cut to its limit. What the caller
// handed over is not written into.
func (e Event) bounded() Event {
	for _, s := range []*string{
		&e.Kind, &e.Session, &e.Parent, &e.Connection, &e.Recipient, &e.RecipientKey, &e.From,
		&e.Call, &e.Verb, &e.Decision, &e.Rule, &e.Cause, &e.Reason, &e.RID,
	} {
		*s = clip(*s)
	}
	for _, b := range []*[]byte{&e.Request, &e.Signature, &e.TH2, &e.End, &e.EndSignature} {
		*b = (*b)[:min(len(*b), MaxBytes)]
	}
	if e.Issuer != nil {
		e.Issuer = &Issuer{UID: e.Issuer.UID, User: clip(e.Issuer.User), Agent: clip(e.Issuer.Agent)}
	}
	e.Stdout, e.Stderr = e.Stdout.bounded(), e.Stderr.bounded()
	e.Params = boundedParams(e.Params)
	return e
}

func (d *Digest) bounded() *Digest {
	if d == nil {
		return nil
	}
	return &Digest{Bytes: d.Bytes, SHA256: clip(d.SHA256)}
}

func boundedParams(params []Param) []Param {
	if len(params) == 0 {
		return nil
	}
	kept := make([]Param, 0, min(len(params), MaxParams+1))
	for i, p := range params {
		if i == MaxParams {
			kept = append(kept, Param{Name: "...", Value: fmt.Sprintf("%d more parameters", len(params)-i)})
			break
		}
		kept = append(kept, p.bounded())
	}
	return kept
}

func (p Param) bounded() Param {
	out := Param{Name: clip(p.Name), Value: p.Value}
	if len(p.Value) <= MaxText && utf8.ValidString(p.Value) {
		return out
	}
	sum := sha256.Sum256([]byte(p.Value))
	out.Value, out.Length, out.SHA256 = prefix(p.Value), len(p.Value), hex.EncodeToString(sum[:])
	return out
}

// clip is the text itself, or its beginning and how long it was.
func clip(s string) string {
	if len(s) <= MaxText {
		return s
	}
	return fmt.Sprintf("%s [cut from %d bytes]", prefix(s), len(s))
}

// prefix is at most MaxText bytes of s, and no half character at their end
// that s did not have there.
func prefix(s string) string {
	if len(s) <= MaxText {
		return s
	}
	end := MaxText
	for end > MaxText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
