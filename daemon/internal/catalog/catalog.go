package catalog

import (
	"errors"
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
	http    map[string]HTTPTarget
}

// Verb is one action.
type Verb struct {
	Name, Summary string
	Class         passport.Class
	Executor      string // exec, ssh or http
	Target        string // of ssh and http
	Timeout       time.Duration
	MaxOutput     int64 // bytes; zero: the session's
	Sandbox       *Sandbox
	argv          []word
	request       *request // of http, which has no argv
	params        []param  // sorted by name
}

// SSHTarget is a machine that ssh verbs run on.
type SSHTarget struct {
	Name, Host string
	Port       int
	// User and KeyFile may hold {issuer}; KeyFile is absolute.
	User, KeyFile string
	// HostKey is the one key the machine may show: "ssh-ed25519 AAAA…".
	HostKey string
	// MaxSessions is how many commands may run there at once.
	MaxSessions int
}

// Defaults of a verb.
const (
	defaultTimeout = time.Minute
	maxTimeout     = 30 * time.Minute
	maxSummary     = 200
	// OpenSSH's own MaxStartups begins to drop connections at 10.
	defaultMaxSessions = 8
)

var (
	verbName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}\.[a-z][a-z0-9_-]{0,63}$`)
	paramName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	targetName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

// Parse reads a verbs file; the name is for messages and for relative key
// files. No data is an empty catalog. The error is the first, and says how
// many targets and verbs are wrong besides.
func Parse(name string, data []byte) (*Catalog, error) {
	file, lines, err := decodeStrict(name, data)
	if err != nil {
		return nil, err
	}
	c := &Catalog{verbs: make(map[string]*Verb), targets: make(map[string]SSHTarget), http: make(map[string]HTTPTarget)}
	at := func(path string, err error) error {
		return fmt.Errorf("%s:%d: %s: %w", name, max(lines[path], 1), path, err)
	}
	var bad []error
	for _, key := range slices.Sorted(maps.Keys(file.SSH)) {
		target, err := newTarget(key, file.SSH[key], filepath.Dir(name))
		if err != nil {
			bad = append(bad, at("ssh/"+key, err))
		}
		c.targets[key] = target
	}
	for _, key := range slices.Sorted(maps.Keys(file.HTTP)) {
		target, err := newHTTPTarget(key, file.HTTP[key], filepath.Dir(name))
		if err != nil {
			bad = append(bad, at("http/"+key, err))
		}
		c.http[key] = target
	}
	for _, key := range slices.Sorted(maps.Keys(file.Verbs)) {
		verb, err := c.newVerb(key, file.Verbs[key])
		if err != nil {
			bad = append(bad, at("verbs/"+key, err))
		}
		c.verbs[key] = verb
	}
	switch len(bad) {
	case 0:
		return c, nil
	case 1:
		return nil, bad[0]
	}
	return nil, fmt.Errorf("%w (and %d more after it)", bad[0], len(bad)-1)
}

func newTarget(name string, f targetFile, dir string) (SSHTarget, error) {
	t := SSHTarget{Name: name, Host: f.Host, Port: f.Port, User: f.User, KeyFile: f.KeyFile, HostKey: f.HostKey, MaxSessions: f.MaxSessions}
	if t.Port == 0 {
		t.Port = 22
	}
	if t.MaxSessions == 0 {
		t.MaxSessions = defaultMaxSessions
	}
	switch {
	case !targetName.MatchString(name):
		return t, errTargetName
	case t.Host == "" || t.User == "" || t.KeyFile == "":
		return t, withFix(errors.New("host, user and key_file are needed"), "add what is missing; user: \"{issuer}\" is the account of whoever asks")
	case t.HostKey == "":
		return t, withFix(errors.New("host_key is needed: the machine's own key, as in its /etc/ssh/ssh_host_ed25519_key.pub"), "read it on the machine itself, or compare what ssh-keyscan -t ed25519 "+t.Host+" prints")
	case t.Port < 1 || t.Port > 65535:
		return t, withFix(fmt.Errorf("port %d is none", t.Port), "use 1 to 65535, or leave it out for 22")
	case t.MaxSessions < 1 || t.MaxSessions > 64:
		return t, withFix(fmt.Errorf("max_sessions %d is not between 1 and 64", t.MaxSessions), fmt.Sprintf("leave it out for %d", defaultMaxSessions))
	}
	t.KeyFile = absolute(dir, t.KeyFile)
	return t, nil
}

func (c *Catalog) newVerb(name string, f verbFile) (*Verb, error) {
	v := &Verb{
		Name: name, Summary: f.Summary, Class: passport.Class(f.Class), Executor: f.Executor,
		Target: f.Target, Timeout: f.Timeout, MaxOutput: int64(f.MaxOutput),
	}
	if v.Timeout == 0 {
		v.Timeout = defaultTimeout
	}
	if err := checkReserved(name); err != nil {
		return nil, err
	}
	if err := v.check(f); err != nil {
		return nil, err
	}
	if err := c.checkExecutor(v, f); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(f.Params)) {
		p, err := newParam(key, f.Params[key])
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", key, withFix(err, "see the examples that openscope init writes"))
		}
		v.params = append(v.params, p)
	}
	var err error
	if v.Sandbox, err = newSandbox(f.Sandbox); err != nil {
		return nil, err
	}
	if v.Executor == "http" {
		return v, v.setRequest(f.Request)
	}
	return v, v.setArgv(f.Argv)
}

func (v *Verb) check(f verbFile) error {
	switch {
	case !verbName.MatchString(v.Name):
		return withFix(errors.New("a verb's name is app.verb, in lower-case letters, digits, _ and -"), "rename it, as logs.tail")
	case v.Class != passport.Read && v.Class != passport.Change && v.Class != passport.Raw:
		return withFix(fmt.Errorf("class is read, change or raw, not %q", f.Class), "add class: read if it only looks, change if it alters something, raw if it prints file contents or answers queries")
	case v.Timeout < time.Second || v.Timeout > maxTimeout:
		return withFix(fmt.Errorf("timeout %s is not between 1s and %s", v.Timeout, maxTimeout), "write it like 90s or 10m, or leave it out for 1m")
	case len(v.Summary) > maxSummary || !isPrintable(v.Summary):
		return withFix(fmt.Errorf("summary is one printable line of at most %d characters", maxSummary), "shorten it, in plain ASCII")
	}
	return nil
}

// checkExecutor holds what the verb says to what its executor takes.
func (c *Catalog) checkExecutor(v *Verb, f verbFile) error {
	_, ssh := c.targets[v.Target]
	_, http := c.http[v.Target]
	switch {
	case v.Executor != "exec" && v.Executor != "ssh" && v.Executor != "http":
		return withFix(fmt.Errorf("executor is exec, ssh or http, not %q", f.Executor), "add executor: exec to run it on this machine")
	case v.Executor == "ssh" && !ssh:
		return withFix(fmt.Errorf("target %q is not in the ssh section", v.Target), "name a machine of the ssh section, or add it there")
	case v.Executor == "http" && !http:
		return withFix(fmt.Errorf("target %q is not in the http section", v.Target), "name a service of the http section, or add it there")
	case v.Executor == "exec" && v.Target != "":
		return withFix(errors.New("exec runs on this machine and has no target"), "drop target, or use executor: ssh")
	case v.Executor != "exec" && f.Sandbox != nil:
		return withFix(fmt.Errorf("%s has no sandbox: it is for commands on this machine", v.Executor), "drop sandbox")
	case v.Executor == "http" && (f.Request == nil || len(f.Argv) > 0):
		return withFix(errors.New("http needs a request, and has no argv"), "write request: {method: GET, path: [...]}")
	case v.Executor != "http" && f.Request != nil:
		return withFix(fmt.Errorf("%s has no request", v.Executor), "use executor: http, or write an argv")
	case v.Executor != "http" && len(f.Argv) == 0:
		return withFix(errors.New("argv is needed"), "write the command and its words as a list, as argv: [/usr/bin/uptime, -p]")
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

// HTTPTargets returns the services of the http section.
func (c *Catalog) HTTPTargets() map[string]HTTPTarget { return maps.Clone(c.http) }

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
