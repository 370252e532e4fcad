package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

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

	line int // where its name stands
}

type delegateFile struct {
	To        []string      `yaml:"to"`
	Verbs     []string      `yaml:"verbs"`
	MaxTTL    time.Duration `yaml:"max_ttl"`
	Bearer    bool          `yaml:"bearer"`
	NoConfirm bool          `yaml:"no_confirm"`
	Raw       bool          `yaml:"raw"`
	MaxCalls  uint32        `yaml:"max_calls"`
	MaxOutput size          `yaml:"max_output"`
	Approve   []string      `yaml:"approve"`
	TwoPeople bool          `yaml:"two_people"`
	Narrow    bool          `yaml:"narrow"`
}

// ruleFile is one allow or deny rule, with the line it stands on.
type ruleFile struct {
	Verb   string
	Params map[string]boundFile
	line   int
}

// UnmarshalYAML keeps the line, and refuses unknown keys, which a decoder of
// its own would let through.
func (r *ruleFile) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a rule is written as {verb: app.verb, params: …}", n.Line)
	}
	r.line = n.Line
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		var err error
		switch key.Value {
		case "verb":
			err = value.Decode(&r.Verb)
		case "params":
			err = value.Decode(&r.Params)
		default:
			err = fmt.Errorf("line %d: there is no key %s in a rule", key.Line, key.Value)
		}
		if err != nil {
			return err
		}
	}
	if r.Verb == "" {
		return fmt.Errorf("line %d: a rule without a verb", n.Line)
	}
	return nil
}

// boundFile is a parameter's bound: a scalar pins, a list is a set, and
// {min, max}, {prefix} or {pattern} say what they are.
type boundFile struct{ bound }

// UnmarshalYAML reads any of the forms.
func (b *boundFile) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.ScalarNode:
		b.Constraint = passport.OneOf(n.Value)
		return nil
	case yaml.SequenceNode:
		var values []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: a set holds plain values", item.Line)
			}
			values = append(values, item.Value)
		}
		if len(values) == 0 {
			return fmt.Errorf("line %d: an empty set allows nothing; leave the rule out instead", n.Line)
		}
		b.Constraint = passport.OneOf(values...)
		return nil
	case yaml.MappingNode:
		return b.fromMapping(n)
	}
	return fmt.Errorf("line %d: a bound is a value, a list, {min, max}, {prefix} or {pattern}", n.Line)
}

func (b *boundFile) fromMapping(n *yaml.Node) error {
	fields := map[string]string{}
	for i := 0; i < len(n.Content); i += 2 {
		fields[n.Content[i].Value] = n.Content[i+1].Value
	}
	keys := slices.Sorted(maps.Keys(fields))
	switch strings.Join(keys, " ") {
	case "prefix":
		if fields["prefix"] == "" {
			return fmt.Errorf("line %d: an empty prefix allows everything; leave it out instead", n.Line)
		}
		b.Constraint = passport.StartsWith(fields["prefix"])
		return nil
	case "pattern":
		re, err := anchored(fields["pattern"])
		if err != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
		b.Constraint, b.pattern = passport.AnyValue(), re
		return nil
	case "max min":
		lo, errLo := strconv.ParseInt(fields["min"], 10, 64)
		hi, errHi := strconv.ParseInt(fields["max"], 10, 64)
		if errLo != nil || errHi != nil || lo > hi {
			return fmt.Errorf("line %d: min and max are integers, in order", n.Line)
		}
		b.Constraint = passport.Between(lo, hi)
		return nil
	}
	return fmt.Errorf("line %d: a bound is {min, max}, {prefix} or {pattern}, not {%s}", n.Line, strings.Join(keys, ", "))
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

// size is a number of bytes, like 64MiB.
type size uint64

var sizePattern = regexp.MustCompile(`^([1-9][0-9]{0,9})(B|KiB|MiB|GiB)?$`)

// UnmarshalYAML reads a number with a binary unit.
func (s *size) UnmarshalYAML(n *yaml.Node) error {
	m := sizePattern.FindStringSubmatch(n.Value)
	if m == nil {
		return fmt.Errorf("line %d: %q is not a size like 64MiB", n.Line, n.Value)
	}
	number, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a size like 64MiB", n.Line, n.Value)
	}
	shift := map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]]
	*s = size(number << shift)
	return nil
}
