package yamlfile

import (
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes, written like 64MiB.
type Size uint64

var sizePattern = regexp.MustCompile(`^([1-9][0-9]{0,9})(B|KiB|MiB|GiB)?$`)

// UnmarshalYAML reads a number with a binary unit.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	m := sizePattern.FindStringSubmatch(n.Value)
	if m == nil {
		return noSize(n)
	}
	number, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return noSize(n)
	}
	*s = Size(number << map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
	return nil
}

// noSize is of the type that lets the YAML package go on and find the rest.
func noSize(n *yaml.Node) error {
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %.100q is not a size like 64MiB", n.Line, n.Value)}}
}
