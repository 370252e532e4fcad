package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/passport"
	"openscope/wire/call"
)

// maxRequests is how many requests of one session wait for the issuer at a time:
// a person has to read them.
const maxRequests = 3

// widening is openscope.request: the recipient asks for a verb that the passport
// lacks. It waits for the issuer as a call that has to be approved does, and
// what it comes to is what share extend would have done.
type widening struct{ *action }

func (w *widening) decide(r *rules, who policy.Who) (rule string, err error) {
	rule = "delegate of agent " + w.agent
	if !r.policy.Delegation(w.agent).OK {
		return rule, errDelegate(w.agent)
	}
	if w.session.Parent != nil {
		return rule, errors.New("a session that was narrowed stays as it is: ask in the one it came from")
	}
	more, err := w.more(r, who)
	if err != nil {
		return rule, err
	}
	granted, _ := w.session.Granted()
	if !slices.ContainsFunc(more, func(v passport.Verb) bool { return !within(v, granted.Verbs) }) {
		return rule, errors.New("the passport allows it already")
	}
	s, ok := w.core.shareOf(w.session.RID)
	if !ok {
		return rule, errors.New("the session is over")
	}
	granted.Verbs = slices.Concat(granted.Verbs, more)
	return rule, w.core.fits(s, granted)
}

// more is what would be added: inside the grant, and such as may be shared.
func (w *widening) more(r *rules, who policy.Who) ([]passport.Verb, error) {
	more, err := narrowed(r, who, w.agent, []string{w.values["verb"]})
	if err != nil {
		return nil, errors.New(err.Error()) // the hint is for the issuer's own commands
	}
	to := w.session.Recipient.Alias
	for _, v := range more.Verbs {
		verb, ok := r.catalog.Verb(v.Name)
		if !ok {
			return nil, fmt.Errorf("there is no verb %s", v.Name)
		}
		if err := mayDelegate(r, w.agent, to, w.session.Bearer, verb); err != nil {
			return nil, err
		}
	}
	return more.Verbs, nil
}

// now is what would be added by the rules that the call was resolved by.
func (w *widening) now() ([]passport.Verb, error) {
	who, err := w.who()
	if err != nil {
		return nil, err
	}
	return w.more(w.rules, who)
}

// Describe says what the call comes to.
func (w *widening) Describe(executor.Job) string {
	more, err := w.now()
	if err != nil {
		return "to be added: " + err.Error()
	}
	return fmt.Sprintf("to be added: %s (%s)", strings.Join(specTexts(more), " "), w.values["reason"])
}

// Execute adds what was asked for, once the issuer has approved it.
func (w *widening) Execute(_ context.Context, job executor.Job) executor.Outcome {
	more, err := w.now()
	if err == nil {
		err = w.add(more)
	}
	for _, text := range specTexts(more) {
		if err == nil {
			_, err = io.WriteString(job.Stdout, text+"\n")
		}
	}
	if err != nil {
		return executor.Outcome{Status: executor.NoStatus, Err: err}
	}
	return executor.Outcome{}
}

func (w *widening) add(more []passport.Verb) error {
	s, ok := w.core.shareOf(w.session.RID)
	if !ok {
		return &ended{cause: call.Expired, reason: "the session is over"}
	}
	if err := w.core.widen(s, more, "asked for: "+w.values["reason"]); err != nil {
		return err
	}
	w.core.reissue(s)
	return nil
}

// asked is the request as the issuer is shown it; nil for any other call.
func (a *action) asked() *control.Asked {
	w, ok := a.reserved().(*widening)
	if !ok {
		return nil
	}
	shown := &control.Asked{Spec: w.values["verb"], Reason: w.values["reason"], Has: []string{}}
	more, err := w.now()
	if err != nil {
		return shown // it will be refused when it is approved
	}
	shown.Adds = specTexts(more)
	granted, _ := w.session.Granted()
	for _, v := range granted.Verbs {
		if slices.ContainsFunc(more, func(m passport.Verb) bool { return m.Name == v.Name }) {
			shown.Has = append(shown.Has, specText(v))
		}
	}
	return shown
}

// tooManyRequests holds a session to [maxRequests]. The caller has locked c.mu.
func (c *core) tooManyRequests(act *action) error {
	if act.verb.Name != catalog.RequestVerb {
		return nil
	}
	n := 0
	for _, w := range c.waiting {
		if w.act.session == act.session && w.act.verb.Name == catalog.RequestVerb {
			n++
		}
	}
	if n >= maxRequests {
		return &ended{cause: call.Limit, reason: fmt.Sprintf("%d requests wait for the issuer already", n)}
	}
	return nil
}

func specTexts(verbs []passport.Verb) []string {
	texts := make([]string, len(verbs))
	for i, v := range verbs {
		texts[i] = specText(v)
	}
	return texts
}
