package catalog

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// The reserved verbs (wire/README.md §6.6): the daemon itself answers them, for
// recipients only. No file defines them, and no grant lists them.
const (
	NarrowVerb  = "openscope.narrow"
	RequestVerb = "openscope.request"

	reservedApp = "openscope."
)

// MaxSpecs is how many verbs one openscope.narrow can name.
const MaxSpecs = 16

// SpecParams are the parameters that hold them, one SPEC each: a list in one
// value would need a separator, and a second parser for it.
var SpecParams = []string{
	"verb1", "verb2", "verb3", "verb4", "verb5", "verb6", "verb7", "verb8",
	"verb9", "verb10", "verb11", "verb12", "verb13", "verb14", "verb15", "verb16",
}

// Reserved finds a reserved verb.
func Reserved(name string) (*Verb, bool) {
	v, ok := reserved[name]
	return v, ok
}

var reserved = map[string]*Verb{
	NarrowVerb: reservedVerb(NarrowVerb, "Make a smaller handle for another key", narrowParams()),
	RequestVerb: reservedVerb(RequestVerb, "Ask the issuer for a verb that the passport lacks", map[string]paramFile{
		"verb":   specParam(true),
		"reason": {Type: typeString, Required: true, Pattern: printableText, MaxLength: maxReason},
	}),
}

const (
	printableText = `^[ -~]+$`
	maxReason     = 200
)

func narrowParams() map[string]paramFile {
	shortest, longest := int64(1), int64(1800)
	params := map[string]paramFile{
		"to":    {Type: typeString, Required: true, Pattern: `^osk1[0-9a-z]+$`, MaxLength: 115},
		"ttl_s": {Type: typeInteger, Min: &shortest, Max: &longest},
	}
	for i, name := range SpecParams {
		params[name] = specParam(i == 0)
	}
	return params
}

func specParam(required bool) paramFile {
	return paramFile{Type: typeString, Required: required, Pattern: printableText, MaxLength: longestValue}
}

// reservedVerb is built when the program starts: what is wrong with it is our
// own bug.
func reservedVerb(name, summary string, params map[string]paramFile) *Verb {
	v := &Verb{Name: name, Summary: summary, Class: passport.Change, Timeout: defaultTimeout}
	for _, key := range slices.Sorted(maps.Keys(params)) {
		p, err := newParam(key, params[key])
		if err != nil {
			panic("catalog: " + name + ": " + key + ": " + err.Error())
		}
		v.params = append(v.params, p)
	}
	return v
}

// checkReserved refuses a file's verb under the daemon's own name: a recipient
// who called it would get something else.
func checkReserved(name string) error {
	if !strings.HasPrefix(name, reservedApp) {
		return nil
	}
	return yamlfile.WithFix(errors.New("names that begin with openscope. are the daemon's own"), "rename it, as logs.tail")
}
