package passport

import (
	"fmt"
	"time"
)

// Class is what a verb does to the world. Both sides are shown it.
type Class string

// The classes. Raw returns file contents or query results as they are.
const (
	Read   Class = "read"
	Change Class = "change"
	Raw    Class = "raw"
)

// Param is one parameter of a verb and what it may be set to.
type Param struct {
	Name, Type, Summary string
	Required            bool
	// Default is the value of a parameter that is left out; nil where it has
	// none and is not in the call at all.
	Default *string
	Allowed Constraint
}

// Verb is one action with its parameters, sorted by name.
type Verb struct {
	Name, Summary string
	Class         Class
	Params        []Param
	Timeout       time.Duration // whole seconds; zero is the executor's
	MaxOutput     uint64        // bytes; zero is the session's
}

// Limits bound a grant beside its verbs; zero is no limit of its own.
type Limits struct {
	MaxCalls                    uint32
	MaxOutput, MaxSessionOutput uint64 // bytes, of a call and of all
	Until                       time.Time
}

// Grant is what may be called. Several verbs of one name are alternatives: a
// call is allowed if one of them allows it.
type Grant struct {
	Verbs  []Verb
	Limits Limits
}

// Refusal is why a grant does not allow a call.
type Refusal struct {
	Verb, Param, Reason string
}

func (r *Refusal) Error() string {
	if r.Param == "" {
		return fmt.Sprintf("%s %s", r.Verb, r.Reason)
	}
	return fmt.Sprintf("%s: %s %s", r.Verb, r.Param, r.Reason)
}

// Allows returns nil if the call is inside the grant, and else a *Refusal.
// values must be complete: a parameter left out of the call is judged with its
// default.
func (g Grant) Allows(verb string, values map[string]string) error {
	refusal := &Refusal{Verb: verb, Reason: "is not in the passport"}
	for i := range g.Verbs {
		if g.Verbs[i].Name != verb {
			continue
		}
		if refusal = g.Verbs[i].refuses(values); refusal == nil {
			return nil
		}
	}
	return refusal
}

func (v *Verb) refuses(values map[string]string) *Refusal {
	known := 0
	for _, p := range v.Params {
		value, set := values[p.Name]
		if !set {
			if p.Required || p.Default != nil {
				return &Refusal{Verb: v.Name, Param: p.Name, Reason: "is missing"}
			}
			// Left out, and with no default: nothing of it reaches the command.
			// A pin is a demand, though, not only a bound.
			if !p.Allowed.Any {
				return &Refusal{Verb: v.Name, Param: p.Name, Reason: "is missing, and is bounded"}
			}
			continue
		}
		known++
		if !p.Allowed.Allows(value) {
			return &Refusal{Verb: v.Name, Param: p.Name, Reason: fmt.Sprintf("may not be %.100q", value)}
		}
	}
	if known != len(values) {
		return &Refusal{Verb: v.Name, Reason: "has a parameter that the passport does not know"}
	}
	return nil
}
