package passport

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Spec asks for one verb, with its parameters narrowed: what --verb says.
type Spec struct {
	Verb   string
	Params map[string]Constraint
}

// OutsideError says that a spec names what the grant does not have, and what
// inside it is nearest.
type OutsideError struct {
	Verb, Param, Value string
	// Nearest is the nearest verb, parameter or value inside; empty if nothing
	// resembles it.
	Nearest string
}

func (e *OutsideError) Error() string {
	text := "there is no verb " + e.Verb + " in the grant"
	switch {
	case e.Value != "":
		text = fmt.Sprintf("%s: %s=%s is outside the grant", e.Verb, e.Param, e.Value)
	case e.Param != "":
		text = fmt.Sprintf("%s has no parameter %s", e.Verb, e.Param)
	}
	if e.Nearest != "" {
		text += "; the nearest inside is " + e.Nearest
	}
	return text
}

// Narrow is the part of the grant that the specs ask for: verbs not named are
// dropped, parameters are narrowed, limits are lowered. It never widens: what a
// spec asks for and the grant does not have is an *OutsideError.
func (g Grant) Narrow(specs []Spec, limits Limits) (Grant, error) {
	out := Grant{Limits: g.Limits.lowered(limits)}
	named := make(map[string]bool)
	for _, spec := range specs {
		if named[spec.Verb] {
			return Grant{}, fmt.Errorf("%w: %s is named twice", ErrSpec, spec.Verb)
		}
		named[spec.Verb] = true
		verbs, err := g.narrowVerb(spec)
		if err != nil {
			return Grant{}, err
		}
		out.Verbs = append(out.Verbs, verbs...)
	}
	return out, nil
}

// narrowVerb narrows every alternative of the verb and keeps those of which
// something is left.
func (g Grant) narrowVerb(spec Spec) ([]Verb, error) {
	var whole, kept []Verb
	outside := error(&OutsideError{Verb: spec.Verb, Nearest: nearest(spec.Verb, g.names())})
	for _, v := range g.Verbs {
		if v.Name != spec.Verb {
			continue
		}
		narrowed, err := v.narrow(spec.Params)
		if errors.Is(err, ErrSpec) {
			return nil, err
		}
		if err != nil {
			outside = err
			continue
		}
		whole, kept = append(whole, v), append(kept, narrowed)
	}
	if len(kept) == 0 {
		return nil, outside
	}
	if err := covered(spec, whole); err != nil {
		return nil, err
	}
	return kept, nil
}

// narrow is what is left of the verb: an *OutsideError where nothing is.
func (v Verb) narrow(by map[string]Constraint) (Verb, error) {
	for name := range by {
		if !slices.ContainsFunc(v.Params, func(p Param) bool { return p.Name == name }) {
			return v, &OutsideError{Verb: v.Name, Param: name, Nearest: nearest(name, v.paramNames())}
		}
	}
	params := make([]Param, len(v.Params))
	var unwritten error
	for i, p := range v.Params {
		params[i] = p
		want, ok := by[p.Name]
		if !ok {
			continue
		}
		both, ok := p.Allowed.Intersect(want)
		switch {
		case !ok && p.Allowed.overlaps(want):
			unwritten = fmt.Errorf("%w: %s: %s=%s cannot be narrowed to %s: name the values", ErrSpec, v.Name, p.Name, p.Allowed, want)
		case !ok:
			return v, outsideValue(v.Name, p, want) // nothing is left, whatever else is asked
		}
		params[i].Allowed = both
	}
	v.Params = params
	return v, unwritten
}

// covered holds what is asked for to its word, or the issuer would believe to
// share what is not: each value of a set must be inside one of the alternatives,
// and a range or a prefix must not reach beyond all that are of its own kind.
func covered(spec Spec, alternatives []Verb) error {
	for name, want := range spec.Params {
		inside := func(c Constraint, by func(granted Constraint) bool) error {
			for _, v := range alternatives {
				if by(paramOf(v, name).Allowed) {
					return nil
				}
			}
			return outsideValue(spec.Verb, paramOf(alternatives[0], name), c)
		}
		for _, value := range want.Set {
			if err := inside(OneOf(value), func(granted Constraint) bool { return granted.Allows(value) }); err != nil {
				return err
			}
		}
		if err := inside(want, func(granted Constraint) bool { return !want.exceeds(granted) }); err != nil {
			return err
		}
	}
	return nil
}

// exceeds reports whether a range or a prefix asks for more than a grant of its
// own kind has. The part that is inside would be safe to share, but not what the
// issuer said.
func (c Constraint) exceeds(granted Constraint) bool {
	sameKind := c.Range != nil && granted.Range != nil || c.Prefix != "" && granted.Prefix != ""
	return sameKind && !c.Within(granted)
}

func paramOf(v Verb, name string) Param {
	i := slices.IndexFunc(v.Params, func(p Param) bool { return p.Name == name })
	return v.Params[i]
}

func outsideValue(verb string, p Param, want Constraint) error {
	e := &OutsideError{Verb: verb, Param: p.Name, Value: want.String()}
	value := e.Value
	for _, v := range want.Set {
		if !p.Allowed.Allows(v) {
			value = v
			break
		}
	}
	e.Value = value
	if p.Allowed.Set != nil {
		e.Nearest = nearest(value, p.Allowed.Set)
	} else if !p.Allowed.Any {
		e.Nearest = p.Allowed.String()
	}
	return e
}

// lowered is the lower of each limit; zero is no limit.
func (l Limits) lowered(o Limits) Limits {
	l.MaxCalls = lower(l.MaxCalls, o.MaxCalls)
	l.MaxOutput = lower(l.MaxOutput, o.MaxOutput)
	l.MaxSessionOutput = lower(l.MaxSessionOutput, o.MaxSessionOutput)
	if l.Until.IsZero() || !o.Until.IsZero() && o.Until.Before(l.Until) {
		l.Until = o.Until
	}
	return l
}

func lower[T uint32 | uint64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (g Grant) names() []string {
	var all []string
	for _, v := range g.Verbs {
		all = append(all, v.Name)
	}
	return all
}

func (v Verb) paramNames() []string {
	var all []string
	for _, p := range v.Params {
		all = append(all, p.Name)
	}
	return all
}

// nearest is the candidate with the fewest edits, if it is near at all.
func nearest(text string, candidates []string) string {
	best, fewest := "", max(len(text)/2, 2)+1
	for _, c := range candidates {
		if len(c) > 256 || len(text) > 256 {
			continue
		}
		if d := edits(strings.ToLower(text), strings.ToLower(c)); d < fewest {
			best, fewest = c, d
		}
	}
	if best == "" && len(candidates) > 0 {
		return slices.Min(candidates)
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}
