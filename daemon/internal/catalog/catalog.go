package catalog

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"openscope/passport"
)

// Catalog is a parsed verbs file. It does not change; a reload makes another.
type Catalog struct {
	verbs   map[string]*Verb
	targets map[string]SSHTarget
}

// Verb is one action.
type Verb struct {
	Name, Summary string
	Class         passport.Class
	Executor      string // exec or ssh
	Target        string // of ssh
	Timeout       time.Duration
	MaxOutput     int64 // bytes; zero: the session's
	argv          []word
	params        []param // sorted by name
}

// SSHTarget is a machine that ssh verbs run on.
type SSHTarget struct {
	Name, Host string
	Port       int
	// User and KeyFile may hold {issuer}; KeyFile is absolute.
	User, KeyFile string
	// HostKey is the one key the machine may show: "ssh-ed25519 AAAA…".
	HostKey string
}

// Defaults of a verb.
const (
	defaultTimeout = time.Minute
	maxTimeout     = 30 * time.Minute
	maxSummary     = 200
)

var (
	verbName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}\.[a-z][a-z0-9_-]{0,63}$`)
	paramName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	targetName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

// Parse reads a verbs file; the name is for messages and for relative key
// files. No data is an empty catalog.
func Parse(name string, data []byte) (*Catalog, error) {
	file, lines, err := decodeStrict(name, data)
	if err != nil {
		return nil, err
	}
	c := &Catalog{verbs: make(map[string]*Verb), targets: make(map[string]SSHTarget)}
	at := func(path string, err error) error {
		return fmt.Errorf("%s:%d: %s: %w", name, max(lines[path], 1), path, err)
	}
	for _, key := range slices.Sorted(maps.Keys(file.SSH)) {
		target, err := newTarget(key, file.SSH[key], filepath.Dir(name))
		if err != nil {
			return nil, at("ssh/"+key, err)
		}
		c.targets[key] = target
	}
	for _, key := range slices.Sorted(maps.Keys(file.Verbs)) {
		verb, err := newVerb(key, file.Verbs[key], c.targets)
		if err != nil {
			return nil, at("verbs/"+key, err)
		}
		c.verbs[key] = verb
	}
	return c, nil
}

func newTarget(name string, f targetFile, dir string) (SSHTarget, error) {
	t := SSHTarget{Name: name, Host: f.Host, Port: f.Port, User: f.User, KeyFile: f.KeyFile, HostKey: f.HostKey}
	if t.Port == 0 {
		t.Port = 22
	}
	switch {
	case !targetName.MatchString(name):
		return t, fmt.Errorf("a target's name is lower-case letters, digits, . _ and -")
	case t.Host == "" || t.User == "" || t.KeyFile == "":
		return t, fmt.Errorf("host, user and key_file are needed")
	case t.HostKey == "":
		return t, fmt.Errorf("host_key is needed: the machine's own key, as in its /etc/ssh/ssh_host_ed25519_key.pub")
	case t.Port < 1 || t.Port > 65535:
		return t, fmt.Errorf("port %d is none", t.Port)
	}
	if !filepath.IsAbs(t.KeyFile) {
		t.KeyFile = filepath.Join(dir, t.KeyFile)
	}
	return t, nil
}

func newVerb(name string, f verbFile, targets map[string]SSHTarget) (*Verb, error) {
	v := &Verb{
		Name: name, Summary: f.Summary, Class: passport.Class(f.Class), Executor: f.Executor,
		Target: f.Target, Timeout: f.Timeout, MaxOutput: int64(f.MaxOutput),
	}
	if v.Timeout == 0 {
		v.Timeout = defaultTimeout
	}
	if err := v.check(f, targets); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(f.Params)) {
		p, err := newParam(key, f.Params[key])
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", key, err)
		}
		v.params = append(v.params, p)
	}
	return v, v.setArgv(f.Argv)
}

func (v *Verb) check(f verbFile, targets map[string]SSHTarget) error {
	_, known := targets[v.Target]
	switch {
	case !verbName.MatchString(v.Name):
		return fmt.Errorf("a verb's name is app.verb, in lower-case letters, digits, _ and -")
	case v.Class != passport.Read && v.Class != passport.Change && v.Class != passport.Raw:
		return fmt.Errorf("class is read, change or raw, not %q", f.Class)
	case v.Executor != "exec" && v.Executor != "ssh":
		return fmt.Errorf("executor is exec or ssh, not %q", f.Executor)
	case v.Executor == "ssh" && !known:
		return fmt.Errorf("target %q is not in the ssh section", v.Target)
	case v.Executor == "exec" && v.Target != "":
		return fmt.Errorf("exec runs on this machine and has no target")
	case v.Timeout < time.Second || v.Timeout > maxTimeout:
		return fmt.Errorf("timeout %s is not between 1s and %s", v.Timeout, maxTimeout)
	case len(v.Summary) > maxSummary || !isPrintable(v.Summary):
		return fmt.Errorf("summary is one printable line of at most %d characters", maxSummary)
	case len(f.Argv) == 0:
		return fmt.Errorf("argv is needed")
	}
	return nil
}

// Names returns every verb's name, sorted.
func (c *Catalog) Names() []string { return slices.Sorted(maps.Keys(c.verbs)) }

// Verb finds a verb by its exact name.
func (c *Catalog) Verb(name string) (*Verb, bool) {
	v, ok := c.verbs[name]
	return v, ok
}

// SSHTargets returns the machines of the ssh section.
func (c *Catalog) SSHTargets() map[string]SSHTarget { return maps.Clone(c.targets) }

// Schema is every verb as a passport has it, sorted by name: what the catalog
// itself lets through.
func (c *Catalog) Schema() []passport.Verb {
	var all []passport.Verb
	for _, name := range c.Names() {
		all = append(all, c.verbs[name].schema())
	}
	return all
}

func (v *Verb) schema() passport.Verb {
	s := passport.Verb{Name: v.Name, Summary: v.Summary, Class: v.Class, Timeout: v.Timeout.Truncate(time.Second), MaxOutput: uint64(v.MaxOutput)}
	for _, p := range v.params {
		s.Params = append(s.Params, p.schema())
	}
	return s
}

func isPrintable(s string) bool {
	for _, r := range s {
		if r < 0x20 || r > 0x7e {
			return false
		}
	}
	return true
}
