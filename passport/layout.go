package passport

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// The layout of passport/README.md §4: maps with small integer keys.
type wirePassport struct {
	Version   uint64     `cbor:"1,keyasint"`
	Session   []byte     `cbor:"2,keyasint"`
	Daemon    []byte     `cbor:"3,keyasint"`
	Issuer    string     `cbor:"4,keyasint"`
	Recipient string     `cbor:"5,keyasint"`
	Subject   []byte     `cbor:"6,keyasint"`
	Serial    uint32     `cbor:"7,keyasint"`
	NotBefore int64      `cbor:"8,keyasint"`
	Expires   int64      `cbor:"9,keyasint"`
	Verbs     []wireVerb `cbor:"10,keyasint"`
	MaxCalls  uint32     `cbor:"11,keyasint"`
	MaxOutput uint64     `cbor:"12,keyasint"`
	MaxTotal  uint64     `cbor:"13,keyasint"`
	Until     int64      `cbor:"14,keyasint"`
}

type wireVerb struct {
	Name      string      `cbor:"1,keyasint"`
	Summary   string      `cbor:"2,keyasint"`
	Class     string      `cbor:"3,keyasint"`
	Params    []wireParam `cbor:"4,keyasint"`
	Timeout   uint32      `cbor:"5,keyasint"` // seconds
	MaxOutput uint64      `cbor:"6,keyasint"`
}

type wireParam struct {
	Name     string   `cbor:"1,keyasint"`
	Type     string   `cbor:"2,keyasint"`
	Summary  string   `cbor:"3,keyasint"`
	Required bool     `cbor:"4,keyasint"`
	Default  *string  `cbor:"5,keyasint"`
	Kind     uint8    `cbor:"6,keyasint"`
	Set      []string `cbor:"7,keyasint,omitempty"`
	Lo       int64    `cbor:"8,keyasint,omitempty"`
	Hi       int64    `cbor:"9,keyasint,omitempty"`
	Prefix   string   `cbor:"10,keyasint,omitempty"`
}

// The kinds of constraint on the wire.
const (
	kindAny    = 1
	kindSet    = 2
	kindRange  = 3
	kindPrefix = 4
)

// Bounds of what a passport may hold beside its size.
const (
	maxVerbs   = 128
	maxSummary = 200
	maxString  = 256
	maxValue   = 4096
	maxTime    = 253_402_300_799 // the last second of the year 9999: beyond it RFC 3339 has no name
)

func toWire(p Passport) wirePassport {
	w := wirePassport{
		Version: version, Session: p.Session[:], Daemon: p.Daemon[:],
		Issuer: p.Issuer, Recipient: p.Recipient, Subject: p.Subject, Serial: p.Serial,
		NotBefore: p.NotBefore.Unix(), Expires: p.Expires.Unix(), Verbs: []wireVerb{},
		MaxCalls: p.Grant.Limits.MaxCalls, MaxOutput: p.Grant.Limits.MaxOutput, MaxTotal: p.Grant.Limits.MaxSessionOutput,
	}
	if !p.Grant.Limits.Until.IsZero() {
		w.Until = p.Grant.Limits.Until.Unix()
	}
	for _, v := range p.Grant.Verbs {
		verb := wireVerb{
			Name: v.Name, Summary: clip(v.Summary, maxSummary), Class: string(v.Class), Params: []wireParam{},
			Timeout: uint32(v.Timeout / time.Second), MaxOutput: v.MaxOutput,
		}
		for _, param := range v.Params {
			verb.Params = append(verb.Params, toWireParam(param))
		}
		w.Verbs = append(w.Verbs, verb)
	}
	return w
}

func toWireParam(p Param) wireParam {
	w := wireParam{Name: p.Name, Type: p.Type, Summary: clip(p.Summary, maxSummary), Required: p.Required, Default: p.Default}
	switch c := p.Allowed; {
	case c.Any:
		w.Kind = kindAny
	case c.Set != nil:
		w.Kind, w.Set = kindSet, c.Set
	case c.Range != nil:
		w.Kind, w.Lo, w.Hi = kindRange, c.Range.Lo, c.Range.Hi
	case c.Prefix != "":
		w.Kind, w.Prefix = kindPrefix, c.Prefix
	}
	return w
}

func fromWire(w wirePassport) (*Passport, error) {
	if w.Version != version || len(w.Session) != 16 || len(w.Daemon) != 32 ||
		len(w.Subject) != ed25519.PublicKeySize || len(w.Verbs) > maxVerbs {
		return nil, fmt.Errorf("%w: a field has the wrong size or version", ErrForged)
	}
	for _, t := range []int64{w.NotBefore, w.Expires, w.Until} {
		if t < 0 || t > maxTime {
			return nil, fmt.Errorf("%w: a time is out of range", ErrForged)
		}
	}
	p := &Passport{
		Session: [16]byte(w.Session), Daemon: [32]byte(w.Daemon), Issuer: w.Issuer, Recipient: w.Recipient,
		Subject: w.Subject, Serial: w.Serial,
		NotBefore: time.Unix(w.NotBefore, 0).UTC(), Expires: time.Unix(w.Expires, 0).UTC(),
	}
	p.Grant.Limits = Limits{MaxCalls: w.MaxCalls, MaxOutput: w.MaxOutput, MaxSessionOutput: w.MaxTotal}
	if w.Until != 0 {
		p.Grant.Limits.Until = time.Unix(w.Until, 0).UTC()
	}
	for _, v := range w.Verbs {
		verb, err := fromWireVerb(v)
		if err != nil {
			return nil, err
		}
		p.Grant.Verbs = append(p.Grant.Verbs, verb)
	}
	if !printable(maxString, p.Issuer, p.Recipient) {
		return nil, fmt.Errorf("%w: a name is too long or not printable", ErrForged)
	}
	return p, nil
}

func fromWireVerb(w wireVerb) (Verb, error) {
	v := Verb{
		Name: w.Name, Summary: w.Summary, Class: Class(w.Class),
		Timeout: time.Duration(w.Timeout) * time.Second, MaxOutput: w.MaxOutput,
	}
	known := v.Class == Read || v.Class == Change || v.Class == Raw
	if !known || !IsVerbName(w.Name) || !printable(maxSummary, w.Summary) || len(w.Params) > maxParams {
		return Verb{}, fmt.Errorf("%w: a verb is malformed", ErrForged)
	}
	for i, param := range w.Params {
		if i > 0 && w.Params[i-1].Name >= param.Name {
			return Verb{}, fmt.Errorf("%w: parameters are not in order", ErrForged)
		}
		p, err := fromWireParam(param)
		if err != nil {
			return Verb{}, err
		}
		v.Params = append(v.Params, p)
	}
	return v, nil
}

func fromWireParam(w wireParam) (Param, error) {
	p := Param{Name: w.Name, Type: w.Type, Summary: w.Summary, Required: w.Required, Default: w.Default}
	switch {
	case w.Kind == kindAny && w.Set == nil && w.Lo == 0 && w.Hi == 0 && w.Prefix == "":
		p.Allowed = AnyValue()
	case w.Kind == kindSet && len(w.Set) > 0 && w.Lo == 0 && w.Hi == 0 && w.Prefix == "":
		p.Allowed = OneOf(w.Set...)
		if !slices.Equal(p.Allowed.Set, w.Set) {
			return Param{}, fmt.Errorf("%w: a set is not in order", ErrForged)
		}
	case w.Kind == kindRange && w.Set == nil && w.Lo <= w.Hi && w.Prefix == "":
		p.Allowed = Between(w.Lo, w.Hi)
	case w.Kind == kindPrefix && w.Set == nil && w.Lo == 0 && w.Hi == 0 && w.Prefix != "":
		p.Allowed = StartsWith(w.Prefix)
	default:
		return Param{}, fmt.Errorf("%w: a parameter's bounds are malformed", ErrForged)
	}
	values := append([]string{w.Prefix}, w.Set...)
	if w.Default != nil {
		values = append(values, *w.Default)
	}
	if !isName(w.Name) || !printable(maxSummary, w.Summary, w.Type) || !printable(maxValue, values...) {
		return Param{}, fmt.Errorf("%w: a parameter is malformed", ErrForged)
	}
	return p, nil
}

// clip cuts a summary to what a passport carries, at a whole character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	cut := 0
	for i := range s {
		if i > n {
			break
		}
		cut = i
	}
	return s[:cut]
}

// printable reports whether the texts are short and hold no control character:
// they will be shown to people, and to their agents.
func printable(limit int, texts ...string) bool {
	for _, s := range texts {
		if len(s) > limit || !utf8.ValidString(s) {
			return false
		}
		for _, r := range s {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				return false
			}
		}
	}
	return true
}
