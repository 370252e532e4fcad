package daemon

import (
	"errors"
	"fmt"
	"slices"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/passport"
)

// reserved is a verb that the daemon itself answers (wire/README.md §6.6). It
// goes through the chokepoint as any other: it has a decision of its own where
// those ask the passport and the grant's rules, and executes where those run a
// command.
type reserved interface {
	executor.Executor
	// decide says which part of the grant allows it, by the rules as they are, or
	// why it is refused.
	decide(r *rules, who policy.Who) (rule string, err error)
}

// reserved is nil for a verb of the catalog.
func (a *action) reserved() reserved {
	switch a.verb.Name {
	case catalog.NarrowVerb:
		return &narrowing{a}
	case catalog.RequestVerb:
		return &widening{a}
	}
	return nil
}

// executor runs the call.
func (a *action) executor() executor.Executor {
	if own := a.reserved(); own != nil {
		return own
	}
	return a.rules.executors[a.verb.Executor]
}

// errDelegate is why nothing reserved is answered for an agent without a right
// to delegate: sessions of it may be open from before.
func errDelegate(agent string) error {
	return fmt.Errorf("the grant of agent %s has no delegate part: nothing of it may be shared", agent)
}

// fits refuses a grant that no passport can hold. It is asked before a session
// has such a grant: afterwards nobody could connect to it.
func (c *core) fits(s *share, g passport.Grant) error {
	_, err := c.signPassport(s, g, 1, c.publicKey())
	if errors.Is(err, passport.ErrTooLarge) {
		return err
	}
	if err != nil {
		return fmt.Errorf("the passport cannot be signed: %w", err)
	}
	return nil
}

// within reports whether every call that v allows is allowed by one of the verbs.
func within(v passport.Verb, verbs []passport.Verb) bool {
	return slices.ContainsFunc(verbs, func(granted passport.Verb) bool {
		if granted.Name != v.Name || len(granted.Params) != len(v.Params) {
			return false
		}
		for i, p := range v.Params {
			if granted.Params[i].Name != p.Name || !p.Allowed.Within(granted.Params[i].Allowed) {
				return false
			}
		}
		return true
	})
}
