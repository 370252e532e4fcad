package daemon

import (
	"reflect"
	"sync"

	"openscope/passport"
)

// left is what of the delegated grant its issuer may still delegate, by the
// rules: what a passport shows. Calls are not decided by it, and some that it
// shows may be refused: a denial of single values, or a pattern, has no place in
// a passport.
func (c *core) left(r *rules, s *share) passport.Grant {
	delegated, _ := s.Granted()
	act := &action{issuer: s.issuer, agent: s.Issuer.Agent, session: s.Session, core: c, rules: r}
	who, err := act.who()
	if err != nil {
		return passport.Grant{Limits: delegated.Limits}
	}
	g := delegated.Meet(r.policy.Surface(act.agent, who, r.catalog.Schema()))
	var kept []passport.Verb
	for _, v := range g.Verbs {
		act.verb, _ = r.catalog.Verb(v.Name) // the surface has only what is there
		if act.stillDelegated(r) == nil && r.policy.LetsSomethingThrough(act.agent, v.Name, v.Pins()) {
			kept = append(kept, v)
		}
	}
	g.Verbs = kept
	return g
}

// showNarrowed sends a new passport to whoever is connected to a session of which
// the new rules leave more or less than the old ones did.
func (c *core) showNarrowed(before *rules) {
	now := c.rules.Load()
	var telling sync.WaitGroup
	defer telling.Wait()
	for _, s := range c.sessions.All() {
		share, ok := c.shareOf(s.RID)
		if !ok || len(c.connectionsOf(share)) == 0 || reflect.DeepEqual(c.left(before, share), c.left(now, share)) {
			continue
		}
		if share.Widen(nil) != nil { // a newer passport of the same session
			continue // it has ended
		}
		// Each by itself: a client that takes nothing holds up its own only.
		telling.Go(func() { c.reissue(share) })
	}
}
