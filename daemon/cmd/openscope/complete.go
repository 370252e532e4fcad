package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// completes offers what the daemon knows at this moment: the positional words by
// words, flags by their names. What the daemon does not answer is not offered.
func (p *paths) completes(words func(context.Context, term.Completing) []term.Candidate) func(context.Context, term.Completing) []term.Candidate {
	return func(ctx context.Context, at term.Completing) []term.Candidate {
		switch at.Flag {
		case "":
			if words == nil {
				return nil
			}
			return words(ctx, at)
		case "agent":
			return p.agentNames(ctx)
		case "to":
			return p.aliases(ctx, at)
		case "verb":
			return p.specs(ctx, at)
		case "approve":
			return p.verbNames(ctx, at, "")
		case "ttl":
			return []term.Candidate{{Text: "5m"}, {Text: "10m"}, {Text: "15m"}, {Text: "30m"}}
		case "max-output":
			return []term.Candidate{{Text: "64KiB"}, {Text: "1MiB"}, {Text: "4MiB"}}
		}
		return nil
	}
}

func (p *paths) agentNames(ctx context.Context) []term.Candidate {
	names, err := p.daemon().Agents(ctx)
	if err != nil {
		return nil
	}
	var all []term.Candidate
	for _, name := range names {
		all = append(all, term.Candidate{Text: name, About: "you may act as it"})
	}
	return all
}

// agentOf is the agent on the command line, or the only one there is.
func (p *paths) agentOf(ctx context.Context, at term.Completing) string {
	if agent := at.Value("agent"); agent != "" {
		return agent
	}
	if names := p.agentNames(ctx); len(names) == 1 {
		return names[0].Text
	}
	return ""
}

func (p *paths) aliases(ctx context.Context, at term.Completing) []term.Candidate {
	if len(at.Words) > 0 {
		return nil
	}
	list, err := p.daemon().ListRecipients(ctx)
	if err != nil {
		return nil
	}
	var all []term.Candidate
	for _, r := range list {
		all = append(all, term.Candidate{Text: r.Alias, About: r.Note})
	}
	return all
}

// sessions are those that live, each by what a person would know it by.
func (p *paths) sessions(ctx context.Context, at term.Completing) []term.Candidate {
	return p.sessionIDs(ctx, at, false)
}

// everySession has ended ones too.
func (p *paths) everySession(ctx context.Context, at term.Completing) []term.Candidate {
	return p.sessionIDs(ctx, at, true)
}

func (p *paths) sessionIDs(ctx context.Context, at term.Completing, ended bool) []term.Candidate {
	if len(at.Words) > 0 {
		return nil
	}
	list, err := p.daemon().ListShares(ctx, control.ListRequest{All: ended})
	if err != nil {
		return nil
	}
	var all []term.Candidate
	for _, s := range list {
		all = append(all, term.Candidate{Text: s.ID, About: strings.TrimSpace(fmt.Sprintf("%s, %s %s", s.Recipient, s.State, s.Note))})
	}
	return all
}

// waitingCalls are those that can be answered.
func (p *paths) waitingCalls(ctx context.Context, at term.Completing) []term.Candidate {
	if len(at.Words) > 0 {
		return nil
	}
	list, err := p.daemon().ListShares(ctx, control.ListRequest{})
	if err != nil {
		return nil
	}
	var all []term.Candidate
	for _, s := range list {
		for _, c := range s.Waiting {
			all = append(all, term.Candidate{Text: c.Call, About: c.Verb + paramsText(c.Params)})
		}
	}
	return all
}

// verbs are the live surface of the agent on the command line.
func (p *paths) verbs(ctx context.Context, at term.Completing) []control.VerbInfo {
	list, err := p.daemon().Verbs(ctx, control.VerbsRequest{Agent: p.agentOf(ctx, at)})
	if err != nil {
		return nil
	}
	return list
}

func (p *paths) verbNames(ctx context.Context, at term.Completing, behind string) []term.Candidate {
	var all []term.Candidate
	for _, v := range p.verbs(ctx, at) {
		all = append(all, term.Candidate{Text: v.Name + behind, About: v.Summary})
	}
	return all
}

// callWords are a verb and its parameters, as call takes them.
func (p *paths) callWords(ctx context.Context, at term.Completing) []term.Candidate {
	if len(at.Words) == 0 {
		return p.verbNames(ctx, at, "")
	}
	for _, v := range p.verbs(ctx, at) {
		if v.Name == at.Words[0] {
			return paramWords(v, at.Words[1:], "", at.Word)
		}
	}
	return nil
}

// specs are verbs in the grammar of --verb: the name, and behind a colon what its
// parameters can be held to.
func (p *paths) specs(ctx context.Context, at term.Completing) []term.Candidate {
	name, params, colon := strings.Cut(at.Word, ":")
	if !colon {
		var all []term.Candidate
		for _, v := range p.verbs(ctx, at) {
			all = append(all, term.Candidate{Text: v.Name, About: v.Summary})
			if len(v.Params) > 0 && v.Name == at.Word {
				all = append(all, term.Candidate{Text: v.Name + ":", About: "hold its parameters to something"})
			}
		}
		return all
	}
	for _, v := range p.verbs(ctx, at) {
		if v.Name == name {
			given := strings.Split(params, ",")
			done, word := given[:len(given)-1], given[len(given)-1]
			return paramWords(v, done, strings.TrimSuffix(at.Word, word), word)
		}
	}
	return nil
}

// paramWords are the parameters that are not given yet, or the values of the one
// that the word names. Each begins with before.
func paramWords(v control.VerbInfo, given []string, before, word string) []term.Candidate {
	name, _, named := strings.Cut(word, "=")
	var all []term.Candidate
	for _, q := range v.Params {
		switch {
		case named && q.Name == name:
			for _, value := range listedValues(v, q.Name) {
				all = append(all, term.Candidate{Text: before + q.Name + "=" + value, About: ""})
			}
		case !named && !slices.ContainsFunc(given, func(g string) bool { return strings.HasPrefix(g, q.Name+"=") }):
			all = append(all, term.Candidate{Text: before + q.Name + "=", About: q.Allowed})
		}
	}
	return all
}

// listedValues are a parameter's, where its schema lists them.
func listedValues(v control.VerbInfo, name string) []string {
	var schema struct {
		Properties map[string]struct {
			Type string `json:"type"`
			Enum []any  `json:"enum"`
		} `json:"properties"`
	}
	if json.Unmarshal(v.Schema, &schema) != nil {
		return nil
	}
	param := schema.Properties[name]
	if param.Type == "boolean" && len(param.Enum) == 0 {
		return []string{"true", "false"}
	}
	var values []string
	for _, value := range param.Enum {
		values = append(values, fmt.Sprint(value))
	}
	return values
}
