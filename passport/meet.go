package passport

import (
	"errors"
	"slices"
)

// Meet is what of the grant is still there by another one, as the other one
// describes it: what of a delegated grant its issuer still has. Each alternative
// is held to each of the same name and the same parameters. What both allow is
// in it; so is what the grant allows where both together cannot be written down
// (a range and a prefix): it is for showing, and decides no call.
func (g Grant) Meet(now Grant) Grant {
	out := Grant{Limits: g.Limits}
	for _, v := range g.Verbs {
		out.Verbs = append(out.Verbs, v.meet(now.Verbs)...)
	}
	return out
}

func (v Verb) meet(now []Verb) []Verb {
	var all []Verb
	for _, other := range now {
		if other.Name != v.Name || !slices.Equal(other.paramNames(), v.paramNames()) {
			continue
		}
		by := make(map[string]Constraint, len(v.Params))
		for _, p := range v.Params {
			by[p.Name] = p.Allowed
		}
		both, err := other.narrow(by)
		switch {
		case errors.Is(err, ErrSpec):
			both = v
		case err != nil:
			continue // nothing is left by this one
		}
		all = append(all, both)
	}
	return largest(all)
}

// largest drops alternatives that another one has whole.
func largest(all []Verb) []Verb {
	var kept []Verb
	for i, v := range all {
		inAnother := false
		for j, other := range all {
			// Of two that are alike the first stays.
			inAnother = inAnother || i != j && v.within(other) && (j < i || !other.within(v))
		}
		if !inAnother {
			kept = append(kept, v)
		}
	}
	return kept
}

// within is for verbs of the same parameters.
func (v Verb) within(outer Verb) bool {
	for i, p := range v.Params {
		if !p.Allowed.Within(outer.Params[i].Allowed) {
			return false
		}
	}
	return true
}
