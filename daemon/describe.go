package daemon

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/passport"
)

// verbInfos tells people what each verb takes, and what is pinned.
func verbInfos(verbs []passport.Verb) []control.VerbInfo {
	infos := make([]control.VerbInfo, len(verbs))
	for i, v := range verbs {
		infos[i] = control.VerbInfo{Name: v.Name, Summary: v.Summary, Class: string(v.Class), Params: []control.ParamInfo{}, Schema: schemaText(v)}
		for _, p := range v.Params {
			infos[i].Params = append(infos[i].Params, paramInfo(p))
		}
	}
	return infos
}

// schemaText is the verb's schema as the socket passes it on. Texts, numbers and
// booleans always marshal.
func schemaText(v passport.Verb) json.RawMessage {
	text, _ := json.Marshal(v.Schema())
	return text
}

func paramInfo(p passport.Param) control.ParamInfo {
	info := control.ParamInfo{
		Name: p.Name, Type: p.Type, Summary: p.Summary, Required: p.Required,
		Allowed: bounds(p.Allowed),
	}
	if p.Default != nil {
		info.Default = *p.Default
	}
	if len(p.Allowed.Set) == 1 {
		info.Pinned = true
	}
	return info
}

// bounds says in a few words which values a constraint lets through.
func bounds(c passport.Constraint) string {
	switch {
	case c.Any:
		return "any"
	case len(c.Set) > 0:
		return strings.Join(c.Set, "|")
	case c.Range != nil:
		return strconv.FormatInt(c.Range.Lo, 10) + ".." + strconv.FormatInt(c.Range.Hi, 10)
	case c.Prefix != "":
		return c.Prefix + "…"
	}
	return "nothing"
}

// specText is a delegated verb in the grammar of --verb, for lists and the log.
func specText(v passport.Verb) string { return v.Spec() }

// narrowedParams is what follows the verb's name in that grammar: a value that
// contains a comma or a bar is not to be read as two.
func narrowedParams(v passport.Verb) string {
	_, params, _ := strings.Cut(v.Spec(), ":")
	return params
}

func auditParam(v passport.Verb) audit.Param {
	return audit.Param{Name: v.Name, Value: narrowedParams(v)}
}

// maxListed is up to how many calls a verb's free values make are listed one by
// one; beyond it they are shown as their bounds.
const maxListed = 12

// concretes are the commands or requests that a delegated verb comes to.
func (c *core) concretes(o *offer, v passport.Verb) []control.Concrete {
	r := c.rules.Load()
	verb, ok := r.catalog.Verb(v.Name)
	if !ok {
		return nil
	}
	as := executor.Identity{Name: r.policy.RunAs(o.agent, policyWho(o.issuer))}
	var all []control.Concrete
	for _, values := range combinations(v.Params) {
		job := jobOf(verb, values)
		job.As, job.Issuer = as, o.issuer.Name
		all = append(all, control.Concrete{Verb: v.Name, Line: r.executors[verb.Executor].Describe(job)})
	}
	return all
}

// combinations are the values that the parameters can take together, each where
// it can be listed, and else one text that stands for all of them.
func combinations(params []passport.Param) []map[string]string {
	all := []map[string]string{{}}
	// Flags come first: a text cannot stand for the words they bring along.
	for _, p := range slices.SortedStableFunc(slices.Values(params), flagsFirst) {
		choices := p.Allowed.Set
		if len(choices) == 0 || len(all)*len(choices) > maxListed {
			choices = []string{fmt.Sprintf("<%s: %s>", p.Name, bounds(p.Allowed))}
			if p.Type == flagType {
				choices = []string{"true"} // with all its words
			}
		}
		var next []map[string]string
		for _, values := range all {
			for _, choice := range choices {
				more := maps.Clone(values)
				more[p.Name] = choice
				next = append(next, more)
			}
		}
		all = next
	}
	return all
}

const flagType = "flag"

func flagsFirst(a, b passport.Param) int {
	switch {
	case a.Type == b.Type:
		return 0
	case a.Type == flagType:
		return -1
	case b.Type == flagType:
		return 1
	}
	return 0
}
