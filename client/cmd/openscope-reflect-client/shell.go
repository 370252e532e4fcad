package main

import (
	"context"
	"slices"
	"strings"

	"openscope/passport"
	"openscope/wire/term"
)

// completing has the shell complete what was shared, where a command takes a
// verb. It asks the daemon, as verbs does: one that is not known yet is not
// confirmed on the way, and nothing is offered.
func completing(o *options, root *term.Command) *term.Command {
	for _, c := range root.Subcommands {
		if strings.HasPrefix(c.Args, "VERB") {
			c.Complete = o.completeCall
		}
	}
	return root
}

func (o *options) completeCall(ctx context.Context, at term.Completing) []term.Candidate {
	if at.Flag != "" {
		return nil
	}
	s, err := o.connect(ctx, at.Env)
	if err != nil {
		return nil
	}
	defer s.Close()
	return sharedWords(s.Passport().Grant.Verbs, at.Words, at.Word)
}

// sharedWords are the verbs, or what may stand behind one.
func sharedWords(verbs []passport.Verb, words []string, word string) []term.Candidate {
	var all []term.Candidate
	name, _, named := strings.Cut(word, "=")
	for _, v := range verbs {
		if len(words) == 0 {
			all = append(all, term.Candidate{Text: v.Name, About: v.Summary})
			continue
		}
		if v.Name != words[0] {
			continue
		}
		for _, p := range v.Params {
			given := slices.ContainsFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, p.Name+"=") })
			switch {
			case named && p.Name == name:
				for _, value := range p.Allowed.Set {
					all = append(all, term.Candidate{Text: p.Name + "=" + value})
				}
			case !named && !given:
				all = append(all, term.Candidate{Text: p.Name + "=", About: allowed(p.Allowed)})
			}
		}
	}
	return all
}
