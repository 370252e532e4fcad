package daemon

import (
	"encoding/json"
	"fmt"
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
		infos[i] = control.VerbInfo{Name: v.Name, Summary: v.Summary, Class: string(v.Class), Schema: schemaText(v)}
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

// concrete is the command or request a delegated verb comes to: pinned values
// as they will be, free ones as their bounds.
func (c *core) concrete(o *offer, v passport.Verb) string {
	r := c.rules.Load()
	verb, ok := r.catalog.Verb(v.Name)
	if !ok {
		return ""
	}
	values := make(map[string]string, len(v.Params))
	for _, p := range v.Params {
		values[p.Name] = fmt.Sprintf("<%s: %s>", p.Name, bounds(p.Allowed))
		if len(p.Allowed.Set) == 1 {
			values[p.Name] = p.Allowed.Set[0]
		}
	}
	job := jobOf(verb, values)
	job.As, job.Issuer = executor.Identity{Name: r.policy.RunAs(o.agent, policyWho(o.issuer))}, o.issuer.Name
	return r.executors[verb.Executor].Describe(job)
}
