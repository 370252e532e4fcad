package mcp

import (
	"fmt"

	"openscope/passport"
)

// table is the tools of one MCP session: what is listed, and what ever was. A
// name that was listed belongs to that tool for good; extending a passport adds
// tools, narrowing it removes them.
type table struct {
	listed map[string]*tool // by name
	ever   map[string]*tool // at most maxEver
	serial uint32           // of the passport it shows
}

// maxEver bounds what is remembered: many times what an issuer extends in half an
// hour. A daemon that makes up new verbs without end is not followed.
const maxEver = 1024

var errTooMany = fmt.Errorf("%d tools were listed in this session: there will be no more", maxEver)

func newTable() *table {
	return &table{listed: make(map[string]*tool), ever: make(map[string]*tool)}
}

// change turns the table into the passport's verbs, and says what that adds and
// removes. skipped are verbs that are not shown, with the reason.
func (t *table) change(issuer string, verbs []passport.Verb) (added []*tool, removed []string, skipped []error) {
	faces := make(map[string]bool) // what the passport asks for
	var fresh []*tool
	for _, v := range verbs {
		made, err := newTool(issuer, v)
		if err != nil {
			skipped = append(skipped, err)
			continue
		}
		if !faces[made.face] {
			faces[made.face] = true
			fresh = append(fresh, made)
		}
	}
	for name, old := range t.listed {
		if !faces[old.face] {
			delete(t.listed, name)
			removed = append(removed, name)
		}
	}
	standing := make(map[string]bool)
	for _, old := range t.listed {
		standing[old.face] = true
	}
	for _, made := range fresh {
		if !standing[made.face] {
			name := t.name(made)
			if t.ever[name] == nil && len(t.ever) == maxEver {
				skipped = append(skipped, fmt.Errorf("%s: %w", made.verb.Name, errTooMany))
				continue
			}
			named := made.named(name)
			t.listed[named.def.Name], t.ever[named.def.Name] = named, named
			added = append(added, named)
		}
	}
	return added, removed, skipped
}

// name is the verb's own, or where that name has another meaning in this
// session the next that has none.
func (t *table) name(made *tool) string {
	name := made.verb.Name
	for n := 2; ; n++ {
		old, taken := t.ever[name]
		if !taken || old.face == made.face && t.listed[name] == nil {
			return name
		}
		name = fmt.Sprintf("%s_%d", made.verb.Name, n)
	}
}
