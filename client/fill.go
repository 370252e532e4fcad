package client

import (
	"maps"
	"slices"

	"openscope/passport"
	"openscope/wire/call"
)

// Fill adds the parameters that were left out and are pinned: to the same value
// in all of the verbs, which are the alternatives of one name. Nothing that was
// given is touched; the daemon judges the whole.
func Fill(alternatives []passport.Verb, params []call.Param) []call.Param {
	if len(alternatives) == 0 {
		return params
	}
	pins := alternatives[0].Pins()
	for _, v := range alternatives[1:] {
		others := v.Pins()
		maps.DeleteFunc(pins, func(name, value string) bool {
			other, pinned := others[name]
			return !pinned || other != value
		})
	}
	filled := slices.Clone(params)
	for _, p := range alternatives[0].Params {
		value, pinned := pins[p.Name]
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
