package catalog

import (
	"embed"
	"io/fs"
)

// Starter is the verbs file of a new installation.
//
//go:embed starter/verbs.yaml
var Starter []byte

//go:embed samples/*.yaml
var samples embed.FS

// Samples are verbs files for common cases, to copy from: one file each, by its
// name. A daemon reads none of them.
func Samples() map[string][]byte {
	all := make(map[string][]byte)
	names, _ := fs.Glob(samples, "samples/*.yaml") // the pattern is well formed
	for _, name := range names {
		if data, err := samples.ReadFile(name); err == nil {
			all[name[len("samples/"):]] = data
		}
	}
	return all
}
