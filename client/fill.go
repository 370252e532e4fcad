package client

import (
	"slices"

	"openscope/passport"
	"openscope/wire/call"
)

// Pins are the parameters of the verb to which the passport leaves one value.
func Pins(v passport.Verb) map[string]string {
	pins := make(map[string]string)
	for _, p := range v.Params {
		if len(p.Allowed.Set) == 1 {
			pins[p.Name] = p.Allowed.Set[0]
		}
	}
	return pins
}

// Fill adds the parameters that were left out and are pinned: to the same value
// in all of the verbs, which are the alternatives of one name. Nothing that was
// given is touched; the daemon judges the whole.
func Fill(alternatives []passport.Verb, params []call.Param) []call.Param {
	if len(alternatives) == 0 {
		return params
	}
	filled := slices.Clone(params)
	for _, p := range alternatives[0].Params {
		value, pinned := Pins(alternatives[0])[p.Name]
		for _, v := range alternatives[1:] {
			if other, ok := Pins(v)[p.Name]; !ok || other != value {
				pinned = false
			}
		}
		given := slices.ContainsFunc(params, func(g call.Param) bool { return g.Name == p.Name })
		if pinned && !given {
			filled = append(filled, call.Param{Name: p.Name, Value: value})
		}
	}
	return filled
}

// Alternatives are the passport's verbs of one name.
func Alternatives(p *passport.Passport, verb string) []passport.Verb {
	var all []passport.Verb
	for _, v := range p.Grant.Verbs {
		if v.Name == verb {
			all = append(all, v)
		}
	}
	return all
}
