package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// verbsFile is verbs.yaml as it is written.
type verbsFile struct {
	SSH   map[string]targetFile `yaml:"ssh"`
	HTTP  map[string]httpFile   `yaml:"http"`
	Verbs map[string]verbFile   `yaml:"verbs"`
}

type targetFile struct {
	Host    string `yaml:"host"`
	Port    int    `yaml:"port"`
	User    string `yaml:"user"`
	KeyFile string `yaml:"key_file"`
	HostKey string `yaml:"host_key"`
	// MaxSessions is how many commands may run there at once.
	MaxSessions int `yaml:"max_sessions"`
}

type httpFile struct {
	URL           string            `yaml:"url"`
	Headers       map[string]string `yaml:"headers"`
	SecretHeaders map[string]string `yaml:"secret_headers"`
	CAFile        string            `yaml:"ca_file"`
}

type requestFile struct {
	Method       string            `yaml:"method"`
	Path         []string          `yaml:"path"`
	Query        map[string]string `yaml:"query"`
	Body         map[string]string `yaml:"body"`
	Form         bool              `yaml:"form"`
	IssuerHeader string            `yaml:"issuer_header"`
}

type sandboxFile struct {
	Read    []string `yaml:"read"`
	Write   []string `yaml:"write"`
	Network string   `yaml:"network"`
}

type verbFile struct {
	Summary   string               `yaml:"summary"`
	Class     string               `yaml:"class"`
	Executor  string               `yaml:"executor"`
	Target    string               `yaml:"target"`
	Argv      []string             `yaml:"argv"`
	Request   *requestFile         `yaml:"request"`
	Sandbox   *sandboxFile         `yaml:"sandbox"`
	Params    map[string]paramFile `yaml:"params"`
	Timeout   time.Duration        `yaml:"timeout"`
	MaxOutput size                 `yaml:"max_output"`
}

type paramFile struct {
	Type      string   `yaml:"type"`
	Summary   string   `yaml:"summary"`
	Enum      []string `yaml:"enum"`
	Pattern   string   `yaml:"pattern"`
	MaxLength int      `yaml:"max_length"`
	Min       *int64   `yaml:"min"`
	Max       *int64   `yaml:"max"`
	Required  bool     `yaml:"required"`
	Default   *string  `yaml:"default"`
	Argv      []string `yaml:"argv"` // of a flag
}

// size is a number of bytes, like 4MiB.
type size int64

var sizePattern = regexp.MustCompile(`^([1-9][0-9]{0,9})(B|KiB|MiB|GiB)?$`)

// UnmarshalYAML reads a number with a binary unit.
func (s *size) UnmarshalYAML(n *yaml.Node) error {
	m := sizePattern.FindStringSubmatch(n.Value)
	if m == nil {
		return noSize(n)
	}
	number, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return noSize(n)
	}
	*s = size(number << map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
	return nil
}

// noSize is of the type that lets the YAML package go on and find the rest.
func noSize(n *yaml.Node) error {
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %.100q is not a size like 4MiB", n.Line, n.Value)}}
}

// decode enters what is wrong with the form of the file. What is not of the
// wrong form is in v all the same, so that the rest can be judged too; false
// says that there is nothing in it.
func (c *collector) decode(data []byte, v any) bool {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		c.addYAML(err)
		return false
	}
	// First of all: the YAML package compares each key with each, and has a
	// complaint for every pair. A file of 70 kB kept it busy for minutes.
	if c.locate(&root, ""); len(c.found) > 0 {
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(v); errors.Is(err, io.EOF) {
		return true // an empty file
	} else if err != nil {
		c.addYAML(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		c.addAt(0, errors.New("more than one document"), "remove the line --- and what follows it")
	}
	return true
}

// maxKeys bounds one mapping, maxDepth how far a path is followed.
const (
	maxKeys  = 10_000
	maxDepth = 16
)

// locate notes the line of every key by its path, and refuses anchors, aliases,
// keys that are given twice, and mappings that are too wide.
func (c *collector) locate(n *yaml.Node, path string) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		c.addAt(n.Line, errors.New("anchors and aliases are not allowed here"), "write the value out in both places")
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		c.locateKeys(n, path)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			c.locate(item, c.note(path, strconv.Itoa(i), item.Line))
		}
	default:
		for _, child := range n.Content {
			c.locate(child, path)
		}
	}
}

func (c *collector) locateKeys(n *yaml.Node, path string) {
	if len(n.Content) > 2*maxKeys {
		c.addAt(n.Line, fmt.Errorf("more than %d keys in one place", maxKeys), yamlFix)
		return
	}
	type key struct {
		kind  yaml.Kind
		value string
	}
	seen := make(map[key]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := key{n.Content[i].Kind, n.Content[i].Value}
		if line, twice := seen[k]; twice {
			c.addAt(n.Content[i].Line, fmt.Errorf("mapping key %.100q already defined at line %d", k.value, line), yamlFix)
			continue
		}
		seen[k] = n.Content[i].Line
		c.locate(n.Content[i], "")
		c.locate(n.Content[i+1], c.note(path, k.value, n.Content[i].Line))
	}
}

// note enters where a path stands. One that is deeper or longer than any of the
// daemon's files is not followed: what is below it is said to be where it is.
func (c *collector) note(path, below string, line int) string {
	if strings.Count(path, "/") >= maxDepth || len(below) > 200 {
		return path
	}
	path = strings.TrimPrefix(path+"/"+below, "/")
	if _, ok := c.lines[path]; !ok {
		c.lines[path] = line
	}
	return path
}

var (
	yamlLine    = regexp.MustCompile(`line (\d+): `)
	yamlUnknown = regexp.MustCompile(`field (\S+) not found in type \S+`)
)

const yamlFix = "compare it with the commented file that openscope init writes"

// addYAML enters each of yaml's complaints.
func (c *collector) addYAML(err error) {
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if several, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = several.Errors
	}
	for _, text := range texts {
		text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
		text = yamlUnknown.ReplaceAllString(text, "there is no key $1 here")
		line := 1
		if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
			line, _ = strconv.Atoi(text[m[2]:m[3]])
			text = text[:m[0]] + text[m[1]:]
		}
		c.addAt(line, errors.New(text), yamlFix)
	}
}
