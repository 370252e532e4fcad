package passport

import (
	"slices"
	"strconv"
	"strings"
)

// Range is a closed range of integers.
type Range struct{ Lo, Hi int64 }

// Constraint is the set of texts a parameter may take: one of any, a set, a
// range of integers, a prefix. The zero value allows nothing.
type Constraint struct {
	Any    bool
	Set    []string // sorted, without duplicates
	Range  *Range
	Prefix string
}

// AnyValue allows every value the verb's own schema does.
func AnyValue() Constraint { return Constraint{Any: true} }

// OneOf allows exactly the given values.
func OneOf(values ...string) Constraint {
	set := slices.Clone(values)
	slices.Sort(set)
	return Constraint{Set: slices.Compact(set)}
}

// Between allows the integers from lo to hi, written canonically.
func Between(lo, hi int64) Constraint { return Constraint{Range: &Range{Lo: lo, Hi: hi}} }

// StartsWith allows the values with the prefix.
func StartsWith(prefix string) Constraint { return Constraint{Prefix: prefix} }

// Allows reports whether the value is in the set.
func (c Constraint) Allows(v string) bool {
	switch {
	case c.Any:
		return true
	case c.Set != nil:
		_, found := slices.BinarySearch(c.Set, v)
		return found
	case c.Range != nil:
		n, ok := canonicalInt(v)
		return ok && c.Range.Lo <= n && n <= c.Range.Hi
	case c.Prefix != "":
		return strings.HasPrefix(v, c.Prefix)
	}
	return false
}

// canonicalInt reads an integer that is written in the one way it can be.
func canonicalInt(v string) (int64, bool) {
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == v
}

// Intersect is what both allow. It reports false where that is nothing, or is
// no constraint that can be written down (a range and a prefix): narrowing
// refuses rather than approximates.
func (c Constraint) Intersect(o Constraint) (Constraint, bool) {
	switch {
	case c.Any:
		return o, !o.empty()
	case o.Any:
		return c, !c.empty()
	case c.Set != nil:
		return filtered(c.Set, o)
	case o.Set != nil:
		return filtered(o.Set, c)
	case c.Range != nil && o.Range != nil:
		both := Range{Lo: max(c.Range.Lo, o.Range.Lo), Hi: min(c.Range.Hi, o.Range.Hi)}
		return Constraint{Range: &both}, both.Lo <= both.Hi
	case c.Prefix != "" && strings.HasPrefix(o.Prefix, c.Prefix):
		return o, true
	case o.Prefix != "" && strings.HasPrefix(c.Prefix, o.Prefix):
		return c, true
	}
	return Constraint{}, false
}

func filtered(set []string, by Constraint) (Constraint, bool) {
	var left []string
	for _, v := range set {
		if by.Allows(v) {
			left = append(left, v)
		}
	}
	return Constraint{Set: left}, len(left) > 0
}

// Within reports whether every value c allows, outer allows too.
func (c Constraint) Within(outer Constraint) bool {
	both, ok := c.Intersect(outer)
	return c.empty() || ok && both.equal(c)
}

func (c Constraint) empty() bool {
	return !c.Any && len(c.Set) == 0 && c.Prefix == "" && (c.Range == nil || c.Range.Lo > c.Range.Hi)
}

func (c Constraint) equal(o Constraint) bool {
	if (c.Range == nil) != (o.Range == nil) || c.Range != nil && *c.Range != *o.Range {
		return false
	}
	return c.Any == o.Any && slices.Equal(c.Set, o.Set) && c.Prefix == o.Prefix
}
