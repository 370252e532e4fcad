package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Line is what a line of the log says, as far as a report is read.
type Line struct {
	Seq          uint64    `json:"seq"`
	Time         time.Time `json:"time"`
	Kind         string    `json:"kind"`
	Session      string    `json:"session"`
	Parent       string    `json:"parent"`
	Recipient    string    `json:"recipient"`
	RecipientKey string    `json:"recipient_key"`
	Call         string    `json:"call"`
	Verb         string    `json:"verb"`
	Params       []Param   `json:"params"`
	Decision     string    `json:"decision"`
	Cause        string    `json:"cause"`
	Reason       string    `json:"reason"`
	Status       *int      `json:"status"`
	Stdout       *Digest   `json:"stdout"`
	Stderr       *Digest   `json:"stderr"`
	Count        int       `json:"count"`

	RID          string `json:"rid"`
	Request      []byte `json:"request"`
	Signature    []byte `json:"signature"`
	TH2          []byte `json:"th2"`
	End          []byte `json:"end"`
	EndSignature []byte `json:"end_signature"`
}

// Param is a parameter of a call. SHA256 is set where Value is only its
// beginning.
type Param struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Length int    `json:"length"`
	SHA256 string `json:"sha256"`
}

// Digest is how much of a stream was sent, and its hash in hex.
type Digest struct {
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// readLine reads a line of the log. It is held to printable ASCII and to member
// names that no two readers take for different ones: each once, in lower case.
func readLine(text string) (Line, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return Line{}, errors.New("it is not printable ASCII")
	}
	if err := checkNames(json.NewDecoder(strings.NewReader(text))); err != nil {
		return Line{}, err
	}
	var l Line
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return Line{}, errors.New("it is not an entry of a log")
	}
	if l.Seq == 0 || l.Kind == "" {
		return Line{}, errors.New("it is not an entry of a log")
	}
	return l, nil
}

// maxDepth is how deep a line nests: an object in a list in an object.
const maxDepth = 3

func checkNames(dec *json.Decoder) error {
	first, err := dec.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("it is not an entry of a log")
	}
	if err := checkObject(dec, 1); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// checkObject reads an object to its end, its opening brace having been read.
func checkObject(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("it nests too deep")
	}
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errors.New("it is not an entry of a log")
		}
		if seen[name] || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return fmt.Errorf("it has the member %q twice, or not as the log writes it", name)
		}
		seen[name] = true
		if err := checkValue(dec, depth); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func checkValue(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return errors.New("it is not an entry of a log")
	}
	switch token {
	case json.Delim('{'):
		return checkObject(dec, depth+1)
	case json.Delim('['):
		for dec.More() {
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
		_, err := dec.Token()
		return err
	}
	return nil
}

// compact is JSON without the space that an editor has put between its parts.
func compact(raw json.RawMessage) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", err
	}
	return b.String(), nil
}
