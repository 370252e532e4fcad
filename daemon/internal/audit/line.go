package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// One entry is one line, a JSON object in printable ASCII, in this order and
// without a space between its parts:
//
//	{"seq":7,"prev":"<64 hex>","boot_id":"…","time":"2026-11-23T12:00:00.000000000Z",
//	 "boot_s":86400.000000000, the event's fields that are not empty …,"hash":"<64 hex>"}\n
//
// seq counts from 1 without a gap. prev is the hash of the line before, zeros
// in the first. time is the wall clock, boot_s the seconds since boot counted
// through suspend, boot_id the kernel's name for that boot. hash is the
// SHA-256 of the line without its newline and without the hash member: of the
// bytes before `,"hash"`, and a closing brace. So that anybody can check it:
//
//	sed -n 7p audit.log | sed 's/,"hash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum
//
// The encoder is written out here, and not left to encoding/json, because a
// line that was written today must still be the one way to write it when that
// package has changed its mind about what to escape.

// Record is an entry as it stands in the log: an event, its place in the
// chain, and when it was written.
type Record struct {
	Event
	Seq        uint64
	Prev, Hash [32]byte
	BootID     string
	Wall       time.Time     // UTC, without a monotonic reading
	Boot       time.Duration // since boot, counted through suspend
}

const timeFormat = "2006-01-02T15:04:05.000000000Z"

// Line is the record's line, without the newline.
func (r Record) Line() []byte { return appendHash(r.appendBody(nil), r.Hash) }

// MarshalJSON is the record's line: there is one way to write it.
func (r Record) MarshalJSON() ([]byte, error) { return r.Line(), nil }

// appendBody appends all of the line that comes before the hash member.
func (r Record) appendBody(dst []byte) []byte {
	o := object{append(dst, '{')}
	o.unsigned("seq", r.Seq)
	o.text("prev", hex.EncodeToString(r.Prev[:]))
	o.text("boot_id", r.BootID)
	o.text("time", r.Wall.UTC().Format(timeFormat))
	o.key("boot_s")
	o.b = fmt.Appendf(o.b, "%d.%09d", r.Boot/time.Second, r.Boot%time.Second)
	r.Event.appendTo(&o)
	return o.b
}

func appendHash(body []byte, hash [32]byte) []byte {
	body = append(body, hashKey...)
	body = hex.AppendEncode(body, hash[:])
	return append(body, `"}`...)
}

const (
	hashKey = `,"hash":"`
	hashEnd = len(hashKey) + 2*sha256.Size + len(`"}`)
)

// hashOf is the hash of a line with this body.
func hashOf(body []byte) [32]byte {
	h := sha256.New()
	h.Write(body)
	h.Write([]byte{'}'})
	return [32]byte(h.Sum(nil))
}

func (e *Event) appendTo(o *object) {
	o.text("kind", e.Kind)
	if e.Issuer != nil {
		o.open("issuer", '{')
		o.unsigned("uid", uint64(e.Issuer.UID))
		o.text("user", e.Issuer.User)
		o.text("agent", e.Issuer.Agent)
		o.close('}')
	}
	o.text("session", e.Session)
	o.text("parent", e.Parent)
	o.text("connection", e.Connection)
	o.text("recipient", e.Recipient)
	o.text("recipient_key", e.RecipientKey)
	o.text("from", e.From)
	o.text("call", e.Call)
	o.text("verb", e.Verb)
	o.params(e.Params)
	o.text("decision", e.Decision)
	o.text("rule", e.Rule)
	o.text("cause", e.Cause)
	o.text("reason", e.Reason)
	if e.Status != nil {
		o.signed("status", int64(*e.Status))
	}
	o.digest("stdout", e.Stdout)
	o.digest("stderr", e.Stderr)
	if e.Count != 0 {
		o.signed("count", int64(e.Count))
	}
	o.text("rid", e.RID)
	o.bytes("request", e.Request)
	o.bytes("signature", e.Signature)
	o.bytes("th2", e.TH2)
	o.bytes("end", e.End)
	o.bytes("end_signature", e.EndSignature)
}

// object is a JSON object, or a list in it, being written.
type object struct{ b []byte }

func (o *object) comma() {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
}

func (o *object) key(name string) {
	o.comma()
	o.b = append(appendString(o.b, name), ':')
}

func (o *object) open(name string, bracket byte) {
	o.key(name)
	o.b = append(o.b, bracket)
}

func (o *object) close(bracket byte) { o.b = append(o.b, bracket) }

func (o *object) text(name, value string) {
	if value != "" {
		o.key(name)
		o.b = appendString(o.b, value)
	}
}

func (o *object) bytes(name string, value []byte) {
	if len(value) > 0 {
		o.text(name, base64.StdEncoding.EncodeToString(value))
	}
}

func (o *object) unsigned(name string, value uint64) {
	o.key(name)
	o.b = strconv.AppendUint(o.b, value, 10)
}

func (o *object) signed(name string, value int64) {
	o.key(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) digest(name string, d *Digest) {
	if d == nil {
		return
	}
	o.open(name, '{')
	o.unsigned("bytes", d.Bytes)
	o.text("sha256", d.SHA256)
	o.close('}')
}

func (o *object) params(params []Param) {
	if len(params) == 0 {
		return
	}
	o.open("params", '[')
	for _, p := range params {
		o.comma()
		o.b = append(o.b, '{')
		o.text("name", p.Name)
		o.text("value", p.Value)
		if p.SHA256 != "" {
			o.unsigned("length", uint64(p.Length))
			o.text("sha256", p.SHA256)
		}
		o.close('}')
	}
	o.close(']')
}

// appendString appends a JSON string of printable ASCII. A byte that is not
// UTF-8 becomes U+FFFD: JSON has no way to write it. The three characters that
// mean something in HTML are escaped as encoding/json does, so that a record
// that goes through it stays the line that was hashed.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r >= 0x20 && r < 0x7f && r != '<' && r != '>' && r != '&':
			dst = append(dst, byte(r))
		case r < 0x10000:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default: // a surrogate pair
			r -= 0x10000
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800|r>>10, 0xdc00|r&0x3ff)
		}
	}
	return append(dst, '"')
}

// What can be wrong with a line by itself.
var (
	errUnsealed  = errors.New("it does not end in a hash")
	errEdited    = errors.New("its content does not have its hash")
	errNotRecord = errors.New("it is not a record")
	errOtherForm = errors.New("it is not written the way the log writes")
)

// parseLine is the strict inverse of Line: it takes what Line would write and
// nothing else. The record shares no memory with the line.
func parseLine(line []byte) (Record, error) {
	if len(line) < hashEnd {
		return Record{}, errUnsealed
	}
	body, end := line[:len(line)-hashEnd], line[len(line)-hashEnd:]
	hash := hashOf(body)
	if !bytes.HasPrefix(end, []byte(hashKey)) {
		return Record{}, errUnsealed
	}
	if !bytes.Equal(end, appendHash(nil, hash)) {
		return Record{}, errEdited
	}
	record, err := parseBody(append(bytes.Clone(body), '}'))
	if err != nil {
		return Record{}, errNotRecord
	}
	record.Hash = hash
	// Member names in another case or twice, spaces, other escapes: all that
	// encoding/json lets through would be read differently by another reader.
	if !bytes.Equal(record.Line(), line) {
		return Record{}, errOtherForm
	}
	return record, nil
}

func parseBody(body []byte) (Record, error) {
	var p struct {
		Seq    uint64      `json:"seq"`
		Prev   string      `json:"prev"`
		BootID string      `json:"boot_id"`
		Time   time.Time   `json:"time"`
		Boot   json.Number `json:"boot_s"`
		Event
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return Record{}, fmt.Errorf("reading JSON: %w", err)
	}
	r := Record{Event: p.Event, Seq: p.Seq, BootID: p.BootID, Wall: p.Time.UTC()}
	if len(p.Prev) != 2*len(r.Prev) {
		return Record{}, errors.New("reading prev: wrong length")
	}
	if _, err := hex.Decode(r.Prev[:], []byte(p.Prev)); err != nil {
		return Record{}, fmt.Errorf("reading prev: %w", err)
	}
	whole, fraction, _ := strings.Cut(p.Boot.String(), ".")
	nanoseconds, err := strconv.ParseUint(whole+fraction, 10, 63)
	if err != nil {
		return Record{}, fmt.Errorf("reading boot_s: %w", err)
	}
	r.Boot = time.Duration(nanoseconds)
	return r, nil
}
