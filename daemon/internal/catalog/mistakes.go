package catalog

import (
	"fmt"
	"strings"

	"openscope/daemon/internal/yamlfile"
)

// collector gathers what is wrong with a verbs file.
type collector struct{ *yamlfile.Collector }

// add enters an error about what a verb or a target, by its path, says under a
// key; nil is none, and a [yamlfile.Mistakes] is each of them.
func (c *collector) add(path, key string, err error) {
	several, ok := err.(yamlfile.Mistakes)
	if !ok && err != nil {
		several = yamlfile.Mistakes{err}
	}
	for _, err := range several {
		c.AddAt(c.Lines().At(path+"/"+key), fmt.Errorf("%s: %w", path, err), yamlfile.CompareFix)
	}
}

// broken are the verbs and targets that have mistakes of form: what else they
// say is not to be judged.
func (c *collector) broken() map[string]bool {
	var starts []placedPath
	for path, line := range c.Lines() {
		if strings.Count(path, "/") == 1 {
			starts = append(starts, placedPath{line, path})
		}
	}
	all := make(map[string]bool)
	for _, place := range c.Places() {
		begin := 0
		for _, s := range starts {
			if s.line <= place {
				begin = max(begin, s.line)
			}
		}
		for _, s := range starts {
			if s.line == begin {
				all[s.path] = true
			}
		}
	}
	return all
}

type placedPath struct {
	line int
	path string
}
