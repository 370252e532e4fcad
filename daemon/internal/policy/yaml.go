package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeStrict reads one YAML document into v: unknown and duplicate keys, a
// second document, anchors and aliases are errors, each one line with its
// place.
func decodeStrict(name string, data []byte, v any) error {
	if err := CheckShape(name, data); err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil // an empty file
	}
	if err != nil {
		return placed(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return withFix(fmt.Errorf("%s: more than one document", name), "remove the line --- and what follows it")
	}
	return nil
}

// maxKeys bounds one mapping.
const maxKeys = 10_000

// CheckShape refuses anchors, aliases, keys that are given twice and mappings
// that are too wide. The YAML package finds keys given twice as well, but
// compares each with each and has a complaint for every pair: a file of 70 kB
// kept it busy for minutes.
func CheckShape(name string, data []byte) error {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return placed(name, err)
	}
	return checkNode(name, &root)
}

func checkNode(name string, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return withFix(fmt.Errorf("%s:%d: anchors and aliases are not allowed here", name, n.Line), "write the value out in both places")
	}
	if n.Kind == yaml.MappingNode {
		if err := checkKeys(name, n); err != nil {
			return err
		}
	}
	for _, child := range n.Content {
		if err := checkNode(name, child); err != nil {
			return err
		}
	}
	return nil
}

func checkKeys(name string, n *yaml.Node) error {
	if len(n.Content) > 2*maxKeys {
		return withFix(fmt.Errorf("%s:%d: more than %d keys in one place", name, n.Line, maxKeys), yamlFix)
	}
	type key struct {
		kind  yaml.Kind
		value string
	}
	seen := make(map[key]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		k := key{n.Content[i].Kind, n.Content[i].Value}
		if line, twice := seen[k]; twice {
			return withFix(fmt.Errorf("%s:%d: mapping key %q already defined at line %d", name, n.Content[i].Line, k.value, line), yamlFix)
		}
		seen[k] = n.Content[i].Line
	}
	return nil
}

var (
	yamlLine    = regexp.MustCompile(`line (\d+): `)
	yamlUnknown = regexp.MustCompile(`field (\S+) not found in type \S+`)
)

const yamlFix = "compare it with the commented file that openscope init writes"

// placed puts yaml's first complaint on one line behind file:line.
func placed(name string, err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n")
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = yamlUnknown.ReplaceAllString(text, "there is no key $1 here")
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		return withFix(fmt.Errorf("%s:%s: %s", name, text[m[2]:m[3]], text[:m[0]]+text[m[1]:]), yamlFix)
	}
	return withFix(fmt.Errorf("%s:1: %s", name, text), yamlFix)
}

// agentLines is where each agent's name stands, of a file that has been read.
func agentLines(data []byte) map[string]int {
	var file struct {
		Agents yaml.Node `yaml:"agents"`
	}
	lines := make(map[string]int)
	if yaml.Unmarshal(data, &file) != nil || file.Agents.Kind != yaml.MappingNode {
		return lines
	}
	for i := 0; i < len(file.Agents.Content); i += 2 {
		lines[file.Agents.Content[i].Value] = file.Agents.Content[i].Line
	}
	return lines
}
