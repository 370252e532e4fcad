package report

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire"
)

// In a text for people the report is a block of its own, that a ticket keeps as
// it is: base64 of its JSON, compressed.
const (
	beginBlock = "-----BEGIN OPENSCOPE REPORT-----"
	endBlock   = "-----END OPENSCOPE REPORT-----"
	blockWidth = 76
)

// What a reader takes at most, and what a block may decompress to.
const (
	MaxFile = 64 << 20
	maxJSON = 256 << 20
)

const version = 1

// fileForm is a report as JSON.
type fileForm struct {
	Version     int         `json:"report"`
	Daemon      string      `json:"daemon"`
	RID         string      `json:"rid"`
	Session     string      `json:"session"`
	Made        time.Time   `json:"made"`
	Endorsement string      `json:"endorsement"`
	Checkpoint  string      `json:"checkpoint"`
	Entries     []entryForm `json:"entries"`
	Text        string      `json:"text_sha256,omitempty"`
	Signature   []byte      `json:"signature"`
}

type entryForm struct {
	Entry json.RawMessage `json:"entry"`
	Proof [][]byte        `json:"proof"`
}

// JSON is the report for programs: the entries in it are the log's own lines.
func (r *Report) JSON() ([]byte, error) {
	f := fileForm{
		Version: version, Daemon: hex.EncodeToString(r.Daemon), RID: hex.EncodeToString(r.RID[:]), Session: r.Session,
		Made: r.Made.UTC(), Endorsement: r.Endorsement, Checkpoint: r.Checkpoint, Entries: []entryForm{}, Signature: r.Signature,
	}
	if r.Text != [32]byte{} {
		f.Text = hex.EncodeToString(r.Text[:])
	}
	for _, e := range r.Entries {
		form := entryForm{Entry: json.RawMessage(e.Line), Proof: [][]byte{}}
		for _, h := range e.Proof {
			form.Proof = append(form.Proof, h[:])
		}
		f.Entries = append(f.Entries, form)
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("writing a report: %w", err)
	}
	return append(text, '\n'), nil
}

// Block is the report as it stands in a text, with its newlines.
func (r *Report) Block() (string, error) {
	text, err := r.JSON()
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(text); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(beginBlock + "\n")
	for rest := base64.StdEncoding.EncodeToString(packed.Bytes()); rest != ""; {
		n := min(len(rest), blockWidth)
		b.WriteString(rest[:n] + "\n")
		rest = rest[n:]
	}
	b.WriteString(endBlock + "\n")
	return b.String(), nil
}

// ErrText means that what stands around a report's block is not what was made
// with it.
var ErrText = errors.New("the text around the signed part is not the one that was made with it")

// TextHash is what Text is of a text that a block stands in: of what comes
// before the block and after it, without the space at the ends of lines, which
// does not survive being pasted.
func TextHash(before, after string) [32]byte {
	h := sha256.New()
	for _, part := range []string{before, after} {
		for line := range strings.Lines(strings.TrimSpace(part)) {
			h.Write([]byte(strings.TrimRight(line, " \t\r\n") + "\n"))
		}
		h.Write([]byte{0})
	}
	return [32]byte(h.Sum(nil))
}

// Read reads a report from a file of any form: JSON, or a text with a block in
// it. It verifies nothing but that the text is the block's.
func Read(data []byte) (*Report, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("reading a report: it has more than %d bytes", MaxFile)
	}
	before, rest, found := strings.Cut(string(data), beginBlock)
	if !found {
		return parse(data)
	}
	block, after, ended := strings.Cut(rest, endBlock)
	if !ended {
		return nil, errors.New("reading a report: its block has no end; was all of it pasted?")
	}
	text, err := unpack(block)
	if err != nil {
		return nil, fmt.Errorf("reading a report: %w", err)
	}
	r, err := parse(text)
	if err != nil {
		return nil, err
	}
	if r.Text != TextHash(before, after) {
		return r, ErrText
	}
	return r, nil
}

func unpack(block string) ([]byte, error) {
	packed, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(block), ""))
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err == nil && len(text) > maxJSON {
		err = fmt.Errorf("it has more than %d bytes", maxJSON)
	}
	return text, err
}

func parse(text []byte) (*Report, error) {
	var f fileForm
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("reading a report: %w", err)
	}
	if f.Version != version {
		return nil, fmt.Errorf("reading a report: it is of version %d, and this program reads %d", f.Version, version)
	}
	if len(f.Entries) > MaxEntries {
		return nil, fmt.Errorf("reading a report: it has more than %d entries", MaxEntries)
	}
	daemon, err1 := hex.DecodeString(f.Daemon)
	rid, err2 := hex.DecodeString(f.RID)
	sum, err3 := hex.DecodeString(f.Text)
	if errors.Join(err1, err2, err3) != nil || len(rid) != len(wire.RendezvousID{}) || len(sum) != 0 && len(sum) != 32 {
		return nil, errors.New("reading a report: a part of it has another length")
	}
	r := &Report{
		Daemon: daemon, RID: wire.RendezvousID(rid), Session: f.Session, Made: f.Made,
		Endorsement: f.Endorsement, Checkpoint: f.Checkpoint, Signature: f.Signature,
	}
	copy(r.Text[:], sum)
	for _, e := range f.Entries {
		entry, err := e.entry()
		if err != nil {
			return nil, fmt.Errorf("reading a report: %w", err)
		}
		r.Entries = append(r.Entries, entry)
	}
	return r, nil
}

func (e entryForm) entry() (Entry, error) {
	line, err := compact(e.Entry)
	if err != nil {
		return Entry{}, err
	}
	entry := Entry{Line: line}
	for _, h := range e.Proof {
		if len(h) != tlog.HashSize {
			return Entry{}, errors.New("a proof has another length")
		}
		entry.Proof = append(entry.Proof, tlog.Hash(h))
	}
	return entry, nil
}
