package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"openscope/passport"
)

func TestADryRunListsWhatCanBeListed(t *testing.T) {
	set := func(name string, values ...string) passport.Param {
		return passport.Param{Name: name, Type: "string", Allowed: passport.Constraint{Set: values}}
	}
	flag := passport.Param{Name: "f", Type: "flag", Allowed: passport.Constraint{Set: []string{"false", "true"}}}
	any := passport.Param{Name: "any", Type: "string", Allowed: passport.Constraint{Any: true}}
	var many []string
	for i := range maxListed {
		many = append(many, fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		params []passport.Param
		want   string
	}{
		"nothing":            {nil, ""},
		"a pin":              {[]passport.Param{set("a", "1")}, "a=1"},
		"two sets":           {[]passport.Param{set("a", "1", "2"), set("b", "x", "y")}, "a=1 b=x; a=1 b=y; a=2 b=x; a=2 b=y"},
		"a set and any":      {[]passport.Param{any, set("a", "1", "2")}, "a=1 any=<any: any>; a=2 any=<any: any>"},
		"too many":           {[]passport.Param{flag, set("a", many...)}, "a=<a: " + strings.Join(many, "|") + "> f=false; a=<a: " + strings.Join(many, "|") + "> f=true"},
		"flags before a set": {[]passport.Param{set("a", many...), flag}, "a=<a: " + strings.Join(many, "|") + "> f=false; a=<a: " + strings.Join(many, "|") + "> f=true"},
	} {
		var got []string
		for _, values := range combinations(c.params) {
			var parts []string
			for k, v := range values {
				parts = append(parts, k+"="+v)
			}
			slices.Sort(parts)
			got = append(got, strings.Join(parts, " "))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: %s\nwant %s", name, text, c.want)
		}
	}
	flags := slices.Repeat([]passport.Param{flag}, 5)
	for i := range flags {
		flags[i].Name = fmt.Sprint("f", i)
	}
	if all := combinations(flags); len(all) > maxListed || all[len(all)-1]["f4"] != "true" {
		t.Errorf("five flags make %d lines, the last %v", len(all), all[len(all)-1])
	}
}
