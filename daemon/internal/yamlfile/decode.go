package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Decode reads one YAML document into v, and returns where its keys stand:
// unknown and duplicate keys, a second document, anchors and aliases are
// errors, each one line with its place. The error is a [Mistakes].
func Decode(name string, data []byte, v any) (Lines, error) {
	c := NewCollector(name, Lines{})
	c.Decode(data, v)
	return c.lines, c.Err()
}

// Decode enters what is wrong with the form of the file. What is not of the
// wrong form is in v all the same, so that the rest can be judged too; false
// says that there is nothing in it.
func (c *Collector) Decode(data []byte, v any) bool {
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
		c.AddAt(0, errors.New("more than one document"), "remove the line --- and what follows it")
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
func (c *Collector) locate(n *yaml.Node, path string) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		c.AddAt(n.Line, errors.New("anchors and aliases are not allowed here"), "write the value out in both places")
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

func (c *Collector) locateKeys(n *yaml.Node, path string) {
	if len(n.Content) > 2*maxKeys {
		c.AddAt(n.Line, fmt.Errorf("more than %d keys in one place", maxKeys), CompareFix)
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
			c.AddAt(n.Content[i].Line, fmt.Errorf("mapping key %.100q already defined at line %d", k.value, line), CompareFix)
			continue
		}
		seen[k] = n.Content[i].Line
		c.locate(n.Content[i], "")
		c.locate(n.Content[i+1], c.note(path, k.value, n.Content[i].Line))
	}
}

// note enters where a path stands. One that is deeper or longer than any of the
// daemon's files is not followed: what is below it is said to be where it is.
func (c *Collector) note(path, below string, line int) string {
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

// CompareFix is how to mend what has no better way.
const CompareFix = "compare it with the commented file that openscope init writes"

// addYAML enters each of yaml's complaints.
func (c *Collector) addYAML(err error) {
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
		c.AddAt(line, errors.New(text), CompareFix)
	}
}
