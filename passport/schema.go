package passport

import (
	"regexp"
	"strconv"
)

// Schema is a verb's parameters as a JSON Schema (2020-12), for programs and
// agents that are to fill them in. It says as much as JSON Schema can: what fits
// it may still be refused, since the daemon alone decides; what does not fit it
// is refused.
type Schema struct {
	Type                 string              `json:"type"` // object
	Properties           map[string]Property `json:"properties"`
	Required             []string            `json:"required"`
	AdditionalProperties bool                `json:"additionalProperties"` // false
}

// Property is one parameter. Values are JSON's own: an integer is a number, a
// boolean or a flag is true or false, everything else is text.
type Property struct {
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
	Default     any    `json:"default,omitempty"`
	Enum        []any  `json:"enum,omitempty"`
	Minimum     *int64 `json:"minimum,omitempty"`
	Maximum     *int64 `json:"maximum,omitempty"`
	Pattern     string `json:"pattern,omitempty"`
}

// The texts of the types that have one way of being written.
const (
	durationPattern  = `^(0|[1-9][0-9]{0,8})[smh]$`
	timestampPattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`
)

// Schema describes the verb's parameters.
func (v Verb) Schema() Schema {
	s := Schema{Type: "object", Properties: make(map[string]Property, len(v.Params)), Required: []string{}}
	for _, p := range v.Params {
		s.Properties[p.Name] = p.property()
		if p.Required || p.Default != nil && !p.Allowed.Allows(*p.Default) {
			s.Required = append(s.Required, p.Name) // a default outside of its bounds is none
		}
	}
	return s
}

func (p Param) property() Property {
	out := Property{Type: "string", Description: p.Summary}
	switch p.Type {
	case "integer":
		out.Type = "integer"
	case "boolean", "flag":
		out.Type = "boolean"
	case "duration":
		out.Pattern = durationPattern
	case "timestamp":
		out.Pattern = timestampPattern
	}
	if p.Default != nil && p.Allowed.Allows(*p.Default) {
		out.Default = p.value(*p.Default)
	}
	for _, text := range p.Allowed.Set {
		out.Enum = append(out.Enum, p.value(text))
	}
	// Bounds that are not of the type's own kind are for the daemon to judge.
	if r := p.Allowed.Range; r != nil && out.Type == "integer" {
		out.Minimum, out.Maximum = &r.Lo, &r.Hi
	}
	if p.Allowed.Prefix != "" && out.Type == "string" && out.Pattern == "" {
		out.Pattern = "^" + regexp.QuoteMeta(p.Allowed.Prefix)
	}
	return out
}

// value is a text as JSON has it; what is not of the parameter's type stays text,
// and so fits nothing.
func (p Param) value(text string) any {
	switch p.Type {
	case "integer":
		if n, ok := canonicalInt(text); ok {
			return n
		}
	case "boolean", "flag":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	}
	return text
}
