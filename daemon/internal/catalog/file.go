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
		return fmt.Errorf("line %d: %q is not a size like 4MiB", n.Line, n.Value)
	}
	number, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a size like 4MiB", n.Line, n.Value)
	}
	*s = size(number << map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
	return nil
}

// decodeStrict reads the one document of the file, and returns where each verb
// stands for messages about it.
func decodeStrict(name string, data []byte) (file verbsFile, lines map[string]int, err error) {
	// First of all: the YAML package compares each key with each, and has a
	// complaint for every pair.
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return file, nil, placed(name, err)
	}
	lines = make(map[string]int)
	if err := locate(name, &root, "", lines); err != nil {
		return file, nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return file, nil, placed(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) && len(data) > 0 {
		return file, nil, withFix(fmt.Errorf("%s: more than one document", name), "remove the line --- and what follows it")
	}
	return file, lines, nil
}

// maxKeys bounds one mapping.
const maxKeys = 10_000

// locate notes the line of every key by its path, and refuses aliases, keys
// that are given twice, and mappings that are too wide.
func locate(name string, n *yaml.Node, path string, lines map[string]int) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return withFix(fmt.Errorf("%s:%d: anchors and aliases are not allowed here", name, n.Line), "write the value out in both places")
	}
	if n.Kind == yaml.MappingNode {
		return locateKeys(name, n, path, lines)
	}
	for _, child := range n.Content {
		if err := locate(name, child, path, lines); err != nil {
			return err
		}
	}
	return nil
}

func locateKeys(name string, n *yaml.Node, path string, lines map[string]int) error {
	if len(n.Content) > 2*maxKeys {
		return withFix(fmt.Errorf("%s:%d: more than %d keys in one place", name, n.Line, maxKeys), yamlFix)
	}
	type key struct {
		kind  yaml.Kind
		value string
	}
	seen := make(map[key]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := key{n.Content[i].Kind, n.Content[i].Value}
		if line, twice := seen[k]; twice {
			return withFix(fmt.Errorf("%s:%d: mapping key %q already defined at line %d", name, n.Content[i].Line, k.value, line), yamlFix)
		}
		seen[k] = n.Content[i].Line
		below := strings.TrimPrefix(path+"/"+k.value, "/")
		lines[below] = n.Content[i].Line
		for _, child := range n.Content[i : i+2] {
			if err := locate(name, child, below, lines); err != nil {
				return err
			}
		}
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
