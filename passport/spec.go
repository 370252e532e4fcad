package passport

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrSpec is wrapped by every refusal of a --verb text.
var ErrSpec = errors.New("not a verb with parameters")

// Limits of a spec.
const (
	maxSpec   = 4096
	maxParams = 32
	maxSet    = 64
)

// ParseSpec reads `app.verb` or `app.verb:name=value,…`. After a name: =v pins,
// =v1|v2 keeps a set, =LO..HI a range of integers, ^=prefix a prefix. A value
// that contains , | " or \ is written in double quotes, with backslash escapes.
func ParseSpec(text string) (Spec, error) {
	if len(text) > maxSpec {
		return Spec{}, fmt.Errorf("%w: longer than %d characters", ErrSpec, maxSpec)
	}
	if !printable(maxSpec, text) {
		return Spec{}, fmt.Errorf("%w: it has a character that does not print", ErrSpec)
	}
	verb, rest, more := strings.Cut(text, ":")
	if !IsVerbName(verb) {
		return Spec{}, fmt.Errorf("%w: %.100q is not app.verb", ErrSpec, verb)
	}
	spec := Spec{Verb: verb}
	if !more {
		return spec, nil
	}
	spec.Params = make(map[string]Constraint)
	p := specParser{rest: rest}
	for {
		name, c, err := p.param()
		if err != nil {
			return Spec{}, err
		}
		if _, twice := spec.Params[name]; twice || len(spec.Params) == maxParams {
			return Spec{}, fmt.Errorf("%w: %s is there twice, or there are too many", ErrSpec, name)
		}
		spec.Params[name] = c
		if p.rest == "" {
			return spec, nil
		}
		if !p.skip(',') {
			return Spec{}, fmt.Errorf("%w: a comma is missing before %.100q", ErrSpec, p.rest)
		}
	}
}

// IsVerbName reports whether s has the form app.verb, of lower-case letters, digits, _ and -.
func IsVerbName(s string) bool {
	parts := strings.Split(s, ".")
	return len(s) <= 128 && len(parts) == 2 && isName(parts[0]) && isName(parts[1])
}

func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '_' || c == '-')) {
			return false
		}
	}
	return true
}

// specParser takes a spec's parameters from the left.
type specParser struct{ rest string }

func (p *specParser) skip(c byte) bool {
	if p.rest != "" && p.rest[0] == c {
		p.rest = p.rest[1:]
		return true
	}
	return false
}

func (p *specParser) param() (string, Constraint, error) {
	end := strings.IndexAny(p.rest, "=^")
	if end < 0 || !isName(p.rest[:end]) {
		return "", Constraint{}, fmt.Errorf("%w: %.100q is not name=value", ErrSpec, p.rest)
	}
	name := p.rest[:end]
	p.rest = p.rest[end:]
	prefix := p.skip('^')
	if !p.skip('=') {
		return "", Constraint{}, fmt.Errorf("%w: = is missing after %s", ErrSpec, name)
	}
	first, quoted, err := p.value()
	if err != nil {
		return "", Constraint{}, err
	}
	if prefix {
		if first == "" {
			return "", Constraint{}, fmt.Errorf("%w: the prefix of %s is empty", ErrSpec, name)
		}
		return name, StartsWith(first), nil
	}
	if r, ok := parseRange(first); ok && !quoted && !strings.HasPrefix(p.rest, "|") {
		if r.Lo > r.Hi {
			return "", Constraint{}, fmt.Errorf("%w: the range %s of %s is empty", ErrSpec, first, name)
		}
		return name, Between(r.Lo, r.Hi), nil
	}
	values := []string{first}
	for p.skip('|') {
		v, _, err := p.value()
		if err != nil {
			return "", Constraint{}, err
		}
		if values = append(values, v); len(values) > maxSet {
			return "", Constraint{}, fmt.Errorf("%w: %s has more than %d values", ErrSpec, name, maxSet)
		}
	}
	return name, OneOf(values...), nil
}

// parseRange reads LO..HI of canonical integers.
func parseRange(s string) (Range, bool) {
	lo, hi, ok := strings.Cut(s, "..")
	if !ok {
		return Range{}, false
	}
	l, okLo := canonicalInt(lo)
	h, okHi := canonicalInt(hi)
	return Range{Lo: l, Hi: h}, okLo && okHi
}

// value takes one value: quoted, or up to the next separator.
func (p *specParser) value() (v string, quoted bool, err error) {
	if p.skip('"') {
		v, err = p.quoted()
		return v, true, err
	}
	end := strings.IndexAny(p.rest, `,|"\`)
	if end < 0 {
		end = len(p.rest)
	}
	v, p.rest = p.rest[:end], p.rest[end:]
	if v == "" || p.rest != "" && (p.rest[0] == '"' || p.rest[0] == '\\') {
		return "", false, fmt.Errorf("%w: a value is empty, or needs quotes near %.100q", ErrSpec, p.rest)
	}
	return v, false, nil
}

func (p *specParser) quoted() (string, error) {
	var v strings.Builder
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '"':
			return v.String(), nil
		case c == '\\' && p.rest != "" && (p.rest[0] == '"' || p.rest[0] == '\\'):
			c, p.rest = p.rest[0], p.rest[1:]
		case c == '\\':
			return "", fmt.Errorf(`%w: only \" and \\ are escapes`, ErrSpec)
		}
		v.WriteByte(c)
	}
	return "", fmt.Errorf("%w: a quote is not closed", ErrSpec)
}

// Pins are the parameters of which one value is left, by name.
func (v Verb) Pins() map[string]string {
	pins := make(map[string]string)
	for _, p := range v.Params {
		if len(p.Allowed.Set) == 1 {
			pins[p.Name] = p.Allowed.Set[0]
		}
	}
	return pins
}

// Spec is the verb with its bounds as ParseSpec reads it: what people are shown
// of it means what it would mean if they typed it.
func (v Verb) Spec() string {
	var bounds []string
	for _, p := range v.Params {
		switch text := p.Allowed.String(); {
		case p.Allowed.Any:
		case p.Allowed.Prefix != "":
			bounds = append(bounds, p.Name+"^="+strings.TrimPrefix(text, "^"))
		default:
			bounds = append(bounds, p.Name+"="+text)
		}
	}
	if len(bounds) == 0 {
		return v.Name
	}
	return v.Name + ":" + strings.Join(bounds, ",")
}

// String is the constraint as ParseSpec reads it after the name and =.
func (c Constraint) String() string {
	switch {
	case c.Any:
		return "any"
	case c.Set != nil:
		values := slices.Clone(c.Set)
		for i, v := range values {
			values[i] = quoteValue(v)
		}
		return strings.Join(values, "|")
	case c.Range != nil:
		return strconv.FormatInt(c.Range.Lo, 10) + ".." + strconv.FormatInt(c.Range.Hi, 10)
	case c.Prefix != "":
		return "^" + quoteValue(c.Prefix)
	}
	return "nothing"
}

func quoteValue(v string) string {
	_, looksLikeRange := parseRange(v)
	if v != "" && !strings.ContainsAny(v, `,|"\`) && !looksLikeRange {
		return v
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
}
