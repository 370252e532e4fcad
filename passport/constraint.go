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

// overlaps reports whether a range and a prefix, whose intersection cannot be
// written, have a value in common.
func (c Constraint) overlaps(o Constraint) bool {
	switch {
	case c.Range != nil && o.Prefix != "":
		return c.Range.hasPrefix(o.Prefix)
	case c.Prefix != "" && o.Range != nil:
		return o.Range.hasPrefix(c.Prefix)
	}
	return false
}

// hasPrefix reports whether an integer of the range, written canonically, begins
// with the prefix.
func (r Range) hasPrefix(prefix string) bool {
	digits, negative := strings.CutPrefix(prefix, "-")
	switch {
	case !negative:
		return r.Hi >= 0 && digitsBegin(digits, uint64(max(r.Lo, 0)), uint64(r.Hi))
	case r.Lo >= 0:
		return false
	}
	return digits == "" || digitsBegin(digits, magnitude(min(r.Hi, -1)), magnitude(r.Lo))
}

// magnitude is that of a negative number, the smallest included.
func magnitude(n int64) uint64 { return uint64(-(n + 1)) + 1 }

// digitsBegin reports whether a number from lo to hi, of which none is over
// 2^63, begins with the digits.
func digitsBegin(digits string, lo, hi uint64) bool {
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return false
	}
	if n == 0 {
		return lo == 0
	}
	// Those are n, n0 to n9, n00 to n99, …
	for first, last := n, n; first <= hi; first, last = first*10, last*10+9 {
		if last >= lo {
			return true
		}
		if first > hi/10 {
			break
		}
	}
	return false
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
