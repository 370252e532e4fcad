package catalog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// Param is a parameter of a call, as text.
type Param struct{ Name, Value string }

// ParamError says why a call's parameters do not fit the verb.
type ParamError struct{ Verb, Param, Reason string }

func (e *ParamError) Error() string {
	return fmt.Sprintf("%s: %s %s", e.Verb, e.Param, e.Reason)
}

// The types of a parameter.
const (
	typeString    = "string"
	typeInteger   = "integer"
	typeBoolean   = "boolean"
	typeFlag      = "flag"
	typeEnum      = "enum"
	typeDuration  = "duration"
	typeTimestamp = "timestamp"
)

var types = []string{typeString, typeInteger, typeBoolean, typeFlag, typeEnum, typeDuration, typeTimestamp}

// param is one parameter's schema.
type param struct {
	name, kind, summary string
	enum                []string
	pattern             *regexp.Regexp // anchored; nil: the conservative one
	maxLength           int
	lo, hi              int64
	bounded             bool // lo and hi were given
	required            bool
	fallback            *string
	argv                []string // of a flag
	segment             bool     // it stands in the path of a request
}

// conservative is what a string may be whose schema says nothing: nothing that
// a shell, an option parser or a path could take for more than a name.
var conservative = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)

const (
	defaultMaxLength = 256
	longestValue     = 4096
)

func newParam(name string, f paramFile) (param, error) {
	p := param{
		name: name, kind: f.Type, summary: f.Summary, enum: f.Enum, maxLength: f.MaxLength,
		required: f.Required, fallback: f.Default, argv: f.Argv, lo: -1 << 62, hi: 1 << 62,
	}
	var wrong yamlfile.Mistakes
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("parameter %s: "+format, append([]any{name}, args...)...), "see the examples that openscope init writes"))
		}
	}
	refuse(!paramName.MatchString(name), "a name is lower-case letters, digits, _ and -")
	p.setBounds(f, refuse)
	refuse(p.required && p.fallback != nil, "it is required and has a default: one of the two")
	if len(wrong) > 0 {
		return p, wrong
	}
	for _, v := range p.enum {
		if err := p.fits(v); err != nil {
			refuse(true, "enum: %q %w", v, err)
		}
	}
	if p.fallback != nil {
		if err := p.accepts(*p.fallback); err != nil {
			refuse(true, "default: %q %w", *p.fallback, err)
		}
	}
	return p, wrong.OrNil()
}

// setBounds takes what belongs to the type, and refuses what does not.
func (p *param) setBounds(f paramFile, refuse func(bad bool, format string, args ...any)) {
	isString, isInteger, isEnum := f.Type == typeString, f.Type == typeInteger, f.Type == typeEnum
	if !slices.Contains(types, f.Type) {
		refuse(true, "type is one of %s, not %q", strings.Join(types, ", "), f.Type)
		return
	}
	refuse(isEnum && len(f.Enum) == 0, "an enum needs its values, as enum: [a, b]")
	refuse(!isString && !isEnum && f.Enum != nil || !isString && (f.Pattern != "" || f.MaxLength != 0), "enum, pattern and max_length are for strings")
	refuse(!isInteger && (f.Min != nil || f.Max != nil), "min and max are for integers")
	ordered := f.Min != nil && f.Max != nil && *f.Min <= *f.Max
	refuse(isInteger && !ordered, "an integer needs min and max, in order")
	refuse((f.Type == typeFlag) != (len(f.Argv) > 0), "a flag, and nothing else, has an argv of its own")
	refuse(f.MaxLength < 0 || f.MaxLength > longestValue, "max_length is at most %d", longestValue)
	if isInteger && ordered {
		p.lo, p.hi, p.bounded = *f.Min, *f.Max, true
	}
	if p.maxLength == 0 {
		p.maxLength = defaultMaxLength
	}
	if f.Pattern == "" {
		return
	}
	pattern, err := anchored(f.Pattern)
	refuse(err != nil, "%w", err)
	p.pattern = pattern
}

// anchored is a pattern that matches the whole of a value or nothing.
func anchored(pattern string) (*regexp.Regexp, error) {
	inside, begins := strings.CutPrefix(pattern, "^")
	inside, ends := strings.CutSuffix(inside, "$")
	if !begins || !ends {
		return nil, errors.New("pattern has to begin with ^ and end with $")
	}
	if _, err := regexp.Compile(inside); err != nil { // or it could close the group
		return nil, fmt.Errorf("pattern: %w", err)
	}
	// The group keeps an alternative from escaping the anchors.
	re, err := regexp.Compile(`^(?:` + inside + `)$`)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	return re, nil
}

// accepts judges one value by the whole schema.
func (p *param) accepts(v string) error {
	if err := p.fits(v); err != nil {
		return err
	}
	if p.enum != nil && !slices.Contains(p.enum, v) {
		return fmt.Errorf("is not one of %s", strings.Join(p.enum, ", "))
	}
	return nil
}

// fits judges one value by its type.
func (p *param) fits(v string) error {
	if p.segment && !isSegment(v) {
		return errors.New("is not one segment of a path")
	}
	switch p.kind {
	case typeInteger:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != v {
			return errors.New("is not an integer")
		}
		if n < p.lo || n > p.hi {
			return fmt.Errorf("is not between %d and %d", p.lo, p.hi)
		}
		return nil
	case typeBoolean, typeFlag:
		if v != "true" && v != "false" {
			return errors.New("is not true or false")
		}
		return nil
	case typeDuration:
		if !isDuration(v) {
			return errors.New("is not a duration as it is written here: 90s, 5m or 1h, in the largest unit that fits")
		}
		return nil
	case typeTimestamp:
		if at, err := time.Parse(timestamp, v); err != nil || at.Format(timestamp) != v {
			return errors.New("is not a moment as it is written here, in UTC and to the second: 2026-01-31T23:59:59Z")
		}
		return nil
	}
	return p.fitsString(v)
}

// timestamp is RFC 3339, and of its many ways of writing a moment one only.
const timestamp = "2006-01-02T15:04:05Z"

var duration = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})([smh])$`)

// isDuration takes each duration in one way of writing it only: a rule that
// denies 60s must not be passed by 1m.
func isDuration(v string) bool {
	m := duration.FindStringSubmatch(v)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	switch {
	case err != nil:
		return false
	case n == 0:
		return m[2] == "s"
	}
	return m[2] == "h" || n%60 != 0
}

func (p *param) fitsString(v string) error {
	if len(v) > p.maxLength {
		return fmt.Errorf("is longer than %d bytes", p.maxLength)
	}
	for _, b := range []byte(v) {
		if b < 0x20 || b == 0x7f {
			return errors.New("has a control character")
		}
	}
	switch {
	case p.pattern != nil:
		if !p.pattern.MatchString(v) {
			return errors.New("does not match its pattern")
		}
	case p.enum != nil: // the list itself is the bound
	case !conservative.MatchString(v) || strings.Contains(v, ".."):
		return errors.New("has a character that is not allowed")
	}
	return nil
}

// Resolve gives every parameter its place: unknown, duplicate, missing and
// mistyped ones are refused, and defaults filled in. The error is a
// *ParamError.
func (v *Verb) Resolve(params []Param) (map[string]string, error) {
	values := make(map[string]string, len(v.params))
	for _, given := range params {
		i := slices.IndexFunc(v.params, func(p param) bool { return p.name == given.Name })
		if i < 0 {
			return nil, &ParamError{Verb: v.Name, Param: fmt.Sprintf("%.64q", given.Name), Reason: "is no parameter of it"}
		}
		if _, twice := values[given.Name]; twice {
			return nil, &ParamError{Verb: v.Name, Param: given.Name, Reason: "is given twice"}
		}
		if err := v.params[i].accepts(given.Value); err != nil {
			return nil, &ParamError{Verb: v.Name, Param: given.Name, Reason: err.Error()}
		}
		values[given.Name] = given.Value
	}
	for _, p := range v.params {
		if _, given := values[p.name]; given {
			continue
		}
		switch {
		case p.required:
			return nil, &ParamError{Verb: v.Name, Param: p.name, Reason: "is missing"}
		case p.fallback != nil:
			values[p.name] = *p.fallback
		}
	}
	return values, nil
}

func (p *param) schema() passport.Param {
	s := passport.Param{Name: p.name, Type: p.kind, Summary: p.summary, Required: p.required, Default: p.fallback, Allowed: passport.AnyValue()}
	switch {
	case p.enum != nil:
		s.Allowed = passport.OneOf(p.enum...)
	case p.bounded:
		s.Allowed = passport.Between(p.lo, p.hi)
	case p.kind == typeBoolean || p.kind == typeFlag:
		s.Allowed = passport.OneOf("false", "true")
	}
	return s
}
