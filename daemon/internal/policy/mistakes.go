package policy

import (
	"fmt"
	"strings"

	"openscope/daemon/internal/yamlfile"
)

// collector gathers what is wrong with a grants or recipients file.
type collector struct{ *yamlfile.Collector }

// add enters an error about what stands at the path; nil is none.
func (c *collector) add(path string, err error, fix string) {
	if err != nil {
		c.AddAt(c.Lines().At(path), fmt.Errorf("%s: %w", dotted(path), err), fix)
	}
}

// addItem enters an error about one item of the list at the path.
func (c *collector) addItem(path string, i int, err error, fix string) {
	c.AddAt(c.Lines().At(fmt.Sprintf("%s/%d", path, i)), fmt.Errorf("%s: %w", dotted(path), err), fix)
}

func dotted(path string) string { return strings.ReplaceAll(path, "/", ".") }
