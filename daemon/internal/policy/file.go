package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// grantsFile is grants.yaml as it is written.
type grantsFile struct {
	Agents map[string]agentFile `yaml:"agents"`
}

type agentFile struct {
	Users    []string      `yaml:"users"`
	Groups   []string      `yaml:"groups"`
	RunAs    string        `yaml:"run_as"`
	Allow    []ruleFile    `yaml:"allow"`
	Deny     []ruleFile    `yaml:"deny"`
	Delegate *delegateFile `yaml:"delegate"`
}

type delegateFile struct {
	To        []string      `yaml:"to"`
	Verbs     []string      `yaml:"verbs"`
	MaxTTL    time.Duration `yaml:"max_ttl"`
	Bearer    bool          `yaml:"bearer"`
	NoConfirm bool          `yaml:"no_confirm"`
	Raw       bool          `yaml:"raw"`
	MaxCalls  uint32        `yaml:"max_calls"`
	MaxOutput yamlfile.Size `yaml:"max_output"`
	Approve   []string      `yaml:"approve"`
	TwoPeople bool          `yaml:"two_people"`
	Narrow    bool          `yaml:"narrow"`
}

// ruleFile is one allow or deny rule, with the line it stands on and what is
// wrong with it.
type ruleFile struct {
	Verb   string
	Params map[string]boundFile
	line   int
	wrong  []wrongLine
}

type wrongLine struct {
	line int
	err  error
}

const (
	ruleFix  = "write it as {verb: app.verb, params: {name: value}}"
	boundFix = "write a value, a list of values, {min: 1, max: 9}, {prefix: text} or {pattern: '^...$'}"
)

func (r *ruleFile) refuse(line int, format string, args ...any) {
	r.wrong = append(r.wrong, wrongLine{line, fmt.Errorf(format, args...)})
}

// UnmarshalYAML keeps the line, and refuses unknown keys, which a decoder of
// its own would let through. What is wrong is kept with the rule, and said by
// whoever builds it.
func (r *ruleFile) UnmarshalYAML(n *yaml.Node) error {
	r.line = n.Line
	if n.Kind != yaml.MappingNode {
		r.refuse(n.Line, "a rule is written as {verb: app.verb, params: …}")
		return nil
	}
	hasVerb := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch key.Value {
		case "verb":
			hasVerb = true
			if r.Verb = value.Value; value.Kind != yaml.ScalarNode {
				r.refuse(key.Line, "verb is one name")
			}
		case "params":
			r.takeParams(value)
		default:
			r.refuse(key.Line, "there is no key %.100s in a rule", key.Value)
		}
	}
	if !hasVerb {
		r.refuse(n.Line, "a rule without a verb")
	}
	return nil
}

func (r *ruleFile) takeParams(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.refuse(n.Line, "params is a mapping of names to bounds")
		return
	}
	r.Params = make(map[string]boundFile, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		bound, err := newBound(n.Content[i+1])
		if err != nil {
			r.refuse(n.Content[i+1].Line, "%s: %w", n.Content[i].Value, yamlfile.WithFix(err, boundFix))
		}
		r.Params[n.Content[i].Value] = boundFile{bound}
	}
}

// boundFile is a parameter's bound: a scalar pins, a list is a set, and
// {min, max}, {prefix} or {pattern} say what they are.
type boundFile struct{ bound }

// newBound reads any of the forms.
func newBound(n *yaml.Node) (b bound, err error) {
	switch n.Kind {
	case yaml.ScalarNode:
		b.Constraint = passport.OneOf(n.Value)
		return b, nil
	case yaml.SequenceNode:
		var values []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return b, errors.New("a set holds plain values")
			}
			values = append(values, item.Value)
		}
		if len(values) == 0 {
			return b, errors.New("an empty set allows nothing; leave the rule out instead")
		}
		b.Constraint = passport.OneOf(values...)
		return b, nil
	case yaml.MappingNode:
		return boundOfMapping(n)
	}
	return b, errors.New("a bound is a value, a list, {min, max}, {prefix} or {pattern}")
}

func boundOfMapping(n *yaml.Node) (b bound, err error) {
	fields := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		fields[n.Content[i].Value] = n.Content[i+1].Value
	}
	keys := slices.Sorted(maps.Keys(fields))
	switch strings.Join(keys, " ") {
	case "prefix":
		if fields["prefix"] == "" {
			return b, errors.New("an empty prefix allows everything; leave it out instead")
		}
		b.Constraint = passport.StartsWith(fields["prefix"])
		return b, nil
	case "pattern":
		b.Constraint = passport.AnyValue()
		b.pattern, err = anchored(fields["pattern"])
		return b, err
	case "max min":
		lo, errLo := strconv.ParseInt(fields["min"], 10, 64)
		hi, errHi := strconv.ParseInt(fields["max"], 10, 64)
		if errLo != nil || errHi != nil || lo > hi {
			return b, errors.New("min and max are integers, in order")
		}
		b.Constraint = passport.Between(lo, hi)
		return b, nil
	}
	return b, fmt.Errorf("a bound is {min, max}, {prefix} or {pattern}, not {%.100s}", strings.Join(keys, ", "))
}

// anchored is a pattern that matches the whole of a value or nothing: the group
// keeps an alternative from escaping the anchors.
func anchored(pattern string) (*regexp.Regexp, error) {
	inside, begins := strings.CutPrefix(pattern, "^")
	inside, ends := strings.CutSuffix(inside, "$")
	if !begins || !ends {
		return nil, fmt.Errorf("a pattern begins with ^ and ends with $, unlike %q", pattern)
	}
	if _, err := regexp.Compile(inside); err != nil { // or it could close the group
		return nil, fmt.Errorf("pattern: %w", err)
	}
	re, err := regexp.Compile(`^(?:` + inside + `)$`)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	return re, nil
}
