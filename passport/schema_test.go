package passport

import (
	"encoding/json"
	"regexp"
	"slices"
	"testing"
)

// fits judges a value by the schema as JSON has it, with what of JSON Schema is
// used here.
func fits(t *testing.T, property Property, value any) bool {
	t.Helper()
	text, err := json.Marshal(property)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Type             string
		Enum             []any
		Minimum, Maximum *float64
		Pattern          string
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	switch v := value.(type) {
	case float64:
		if s.Type != "integer" || s.Minimum != nil && v < *s.Minimum || s.Maximum != nil && v > *s.Maximum {
			return false
		}
	case bool:
		if s.Type != "boolean" {
			return false
		}
	case string:
		if s.Type != "string" || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			return false
		}
	}
	return s.Enum == nil || slices.Contains(s.Enum, value)
}

func TestASchemaFitsWhatItsConstraintAllows(t *testing.T) {
	texts := map[string]any{ // as a call has it, and as JSON does
		"web": "web", "web-1": "web-1", "we": "we", "": "", "a.b": "a.b", "axb": "axb",
		"7": 7.0, "8": 8.0, "-3": -3.0, "9000000000000000": 9e15,
		"true": true, "false": false,
		"5m": "5m", "0s": "0s", "five": "five", "2026-01-31T23:59:59Z": "2026-01-31T23:59:59Z", "now": "now",
	}
	of := map[string][]string{
		"string":    {"web", "web-1", "we", "", "a.b", "axb"},
		"integer":   {"7", "8", "-3", "9000000000000000"},
		"boolean":   {"true", "false"},
		"flag":      {"true", "false"},
		"enum":      {"web", "we"},
		"duration":  {"5m", "0s"},
		"timestamp": {"2026-01-31T23:59:59Z"},
	}
	tried := 0
	for kind, own := range of {
		for _, allowed := range []Constraint{
			AnyValue(), OneOf("web"), OneOf("web", "we"), OneOf("7"), OneOf("7", "-3"), OneOf("true"), OneOf("false", "true"), OneOf("5m"),
			Between(7, 7), Between(-5, 8), StartsWith("web"), StartsWith("a."),
		} {
			p := Param{Name: "p", Type: kind, Allowed: allowed}
			for text, value := range texts {
				if !slices.Contains(own, text) {
					if fits(t, p.property(), value) && kind != "string" && kind != "enum" {
						t.Errorf("%s, %v: %q fits, which is of another type", kind, allowed, text)
					}
					continue
				}
				tried++
				inside, said := allowed.Allows(text), fits(t, p.property(), value)
				if inside && !said {
					t.Errorf("%s, %v: %q is allowed, and does not fit", kind, allowed, text)
				}
				exact := allowed.Range == nil && allowed.Prefix == "" || allowed.Range != nil && kind == "integer" || allowed.Prefix != "" && kind == "string"
				if exact && said && !inside {
					t.Errorf("%s, %v: %q fits, and is not allowed", kind, allowed, text)
				}
			}
		}
	}
	t.Logf("%d values", tried)
}

func TestASchemaIsPlainJSON(t *testing.T) {
	five, outside := "5", "50"
	v := Verb{Name: "app.a", Params: []Param{
		{Name: "follow", Type: "flag", Allowed: OneOf("false", "true")},
		{Name: "lines", Type: "integer", Summary: "how many", Default: &five, Allowed: Between(1, 10)},
		{Name: "most", Type: "integer", Default: &outside, Allowed: Between(1, 10)},
		{Name: "service", Type: "string", Required: true, Allowed: StartsWith("web+")},
	}}
	text, err := json.Marshal(v.Schema())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"object","properties":{` +
		`"follow":{"type":"boolean","enum":[false,true]},` +
		`"lines":{"type":"integer","description":"how many","default":5,"minimum":1,"maximum":10},` +
		`"most":{"type":"integer","minimum":1,"maximum":10},` +
		`"service":{"type":"string","pattern":"^web\\+"}},` +
		`"required":["most","service"],"additionalProperties":false}`
	if string(text) != want {
		t.Errorf("%s\nwant\n%s", text, want)
	}
	if text, err := json.Marshal(Verb{}.Schema()); err != nil || string(text) != `{"type":"object","properties":{},"required":[],"additionalProperties":false}` {
		t.Errorf("%s, %v", text, err)
	}
}
