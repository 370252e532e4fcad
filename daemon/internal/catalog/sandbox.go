package catalog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"openscope/daemon/internal/yamlfile"
)

// Sandbox is what a command of an exec verb may touch at all, by the kernel's
// Landlock: a verb that has one does not run where the kernel cannot hold it.
type Sandbox struct {
	// Read are files and folders that it may read and execute, Write those that
	// it may also change; absolute.
	Read, Write []string
	// NoNetwork gives it a network of its own, with nothing in it.
	NoNetwork bool
}

// maxSandboxPaths bounds the rules of a sandbox.
const maxSandboxPaths = 64

func newSandbox(f *sandboxFile) (*Sandbox, error) {
	if f == nil {
		return nil, nil
	}
	all := slices.Concat(f.Read, f.Write)
	if len(f.Read) == 0 || len(all) > maxSandboxPaths {
		return nil, yamlfile.WithFix(fmt.Errorf("sandbox names %d paths to read and %d in all", len(f.Read), len(all)), "name 1 to 64, the command and its libraries among them, as read: [/usr, /lib, /etc]")
	}
	for _, path := range all {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, yamlfile.WithFix(fmt.Errorf("sandbox: %q is not an absolute path in its shortest form", path), "write the whole path, without . or .. or a / at its end")
		}
	}
	if f.Network != "" && f.Network != "none" {
		return nil, yamlfile.WithFix(fmt.Errorf("sandbox: network %q", f.Network), "write network: none, or leave it out")
	}
	return &Sandbox{Read: f.Read, Write: f.Write, NoNetwork: f.Network == "none"}, nil
}

var errTargetName = yamlfile.WithFix(errors.New("a target's name is lower-case letters, digits, . _ and -"), "rename the target, and the target: of its verbs")
