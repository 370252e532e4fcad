package catalog

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// Catalog is a parsed verbs file. It does not change; a reload makes another.
type Catalog struct {
	verbs   map[string]*Verb
	targets map[string]SSHTarget
	http    map[string]HTTPTarget
	file    string
	lines   yamlfile.Lines
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
// files. No data is an empty catalog. The error is a [yamlfile.Mistakes].
func Parse(name string, data []byte) (*Catalog, error) {
	var file verbsFile
	wrong := &collector{yamlfile.NewCollector(name, yamlfile.Lines{})}
	if !wrong.Decode(data, &file) {
		return nil, wrong.Err()
	}
	broken := wrong.broken()
	c := &Catalog{verbs: make(map[string]*Verb), targets: make(map[string]SSHTarget), http: make(map[string]HTTPTarget)}
	for _, key := range slices.Sorted(maps.Keys(file.SSH)) {
		target, err := newTarget(key, file.SSH[key], filepath.Dir(name))
		if path := "ssh/" + key; !broken[path] {
			wrong.add(path, "", err)
		}
		c.targets[key] = target
	}
	for _, key := range slices.Sorted(maps.Keys(file.HTTP)) {
		target, err := newHTTPTarget(key, file.HTTP[key], filepath.Dir(name))
		if path := "http/" + key; !broken[path] {
			wrong.add(path, "", err)
		}
		c.http[key] = target
	}
	for _, key := range slices.Sorted(maps.Keys(file.Verbs)) {
		if path := "verbs/" + key; !broken[path] {
			c.verbs[key] = c.newVerb(wrong, path, key, file.Verbs[key])
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	c.file, c.lines = name, wrong.Lines()
	return c, nil
}

// Mistake is an error about a target, for whoever finds one later: section is ssh
// or http.
func (c *Catalog) Mistake(section, name string, err error) error {
	wrong := &collector{yamlfile.NewCollector(c.file, c.lines)}
	wrong.add(section+"/"+name, "", err)
	return wrong.Err()
}

func newTarget(name string, f targetFile, dir string) (SSHTarget, error) {
	t := SSHTarget{Name: name, Host: f.Host, Port: f.Port, User: f.User, KeyFile: f.KeyFile, HostKey: f.HostKey, MaxSessions: f.MaxSessions}
	if t.Port == 0 {
		t.Port = 22
	}
	if t.MaxSessions == 0 {
		t.MaxSessions = defaultMaxSessions
	}
	var wrong yamlfile.Mistakes
	refuse := func(bad bool, err error, fix string) {
		if bad {
			wrong = append(wrong, yamlfile.WithFix(err, fix))
		}
	}
	refuse(!targetName.MatchString(name), errTargetName, "")
	refuse(t.Host == "" || t.User == "" || t.KeyFile == "", errors.New("host, user and key_file are needed"), "add what is missing; user: \"{issuer}\" is the account of whoever asks")
	refuse(t.HostKey == "", errors.New("host_key is needed: the machine's own key, as in its /etc/ssh/ssh_host_ed25519_key.pub"), "read it on the machine itself, or compare what ssh-keyscan -t ed25519 "+t.Host+" prints")
	refuse(t.Port < 1 || t.Port > 65535, fmt.Errorf("port %d is none", t.Port), "use 1 to 65535, or leave it out for 22")
	refuse(t.MaxSessions < 1 || t.MaxSessions > 64, fmt.Errorf("max_sessions %d is not between 1 and 64", t.MaxSessions), fmt.Sprintf("leave it out for %d", defaultMaxSessions))
	t.KeyFile = absolute(dir, t.KeyFile)
	return t, wrong.OrNil()
}

// newVerb enters all that is wrong with a verb. What its argv or request makes
// of the parameters is judged once they are good themselves.
func (c *Catalog) newVerb(wrong *collector, path, name string, f verbFile) *Verb {
	before := wrong.Count()
	v := &Verb{
		Name: name, Summary: f.Summary, Class: passport.Class(f.Class), Executor: f.Executor,
		Target: f.Target, Timeout: f.Timeout, MaxOutput: int64(f.MaxOutput),
	}
	if v.Timeout == 0 {
		v.Timeout = defaultTimeout
	}
	v.check(wrong, path, f)
	wrong.add(path, "", c.checkExecutor(v, f))
	for _, key := range slices.Sorted(maps.Keys(f.Params)) {
		p, err := newParam(key, f.Params[key])
		wrong.add(path, "params/"+key, err)
		v.params = append(v.params, p)
	}
	sandbox, err := newSandbox(f.Sandbox)
	wrong.add(path, "sandbox", err)
	v.Sandbox = sandbox
	switch {
	case wrong.Count() > before:
	case v.Executor == "http":
		wrong.add(path, "request", v.setRequest(f.Request))
	default:
		wrong.add(path, "argv", v.setArgv(f.Argv))
	}
	return v
}

func (v *Verb) check(wrong *collector, path string, f verbFile) {
	wrong.add(path, "", checkReserved(v.Name))
	if !verbName.MatchString(v.Name) {
		wrong.add(path, "", yamlfile.WithFix(errors.New("a verb's name is app.verb, in lower-case letters, digits, _ and -"), "rename it, as logs.tail"))
	}
	if v.Class != passport.Read && v.Class != passport.Change && v.Class != passport.Raw {
		wrong.add(path, "class", yamlfile.WithFix(fmt.Errorf("class is read, change or raw, not %q", f.Class), "add class: read if it only looks, change if it alters something, raw if it prints file contents or answers queries"))
	}
	if v.Timeout < time.Second || v.Timeout > maxTimeout {
		wrong.add(path, "timeout", yamlfile.WithFix(fmt.Errorf("timeout %s is not between 1s and %s", v.Timeout, maxTimeout), "write it like 90s or 10m, or leave it out for 1m"))
	}
	if len(v.Summary) > maxSummary || !isPrintable(v.Summary) {
		wrong.add(path, "summary", yamlfile.WithFix(fmt.Errorf("summary is one printable line of at most %d characters", maxSummary), "shorten it, in plain ASCII"))
	}
}

// checkExecutor holds what the verb says to what its executor takes.
func (c *Catalog) checkExecutor(v *Verb, f verbFile) error {
	_, ssh := c.targets[v.Target]
	_, http := c.http[v.Target]
	switch {
	case v.Executor != "exec" && v.Executor != "ssh" && v.Executor != "http":
		return yamlfile.WithFix(fmt.Errorf("executor is exec, ssh or http, not %q", f.Executor), "add executor: exec to run it on this machine")
	case v.Executor == "ssh" && !ssh:
		return yamlfile.WithFix(fmt.Errorf("target %q is not in the ssh section", v.Target), "name a machine of the ssh section, or add it there")
	case v.Executor == "http" && !http:
		return yamlfile.WithFix(fmt.Errorf("target %q is not in the http section", v.Target), "name a service of the http section, or add it there")
	case v.Executor == "exec" && v.Target != "":
		return yamlfile.WithFix(errors.New("exec runs on this machine and has no target"), "drop target, or use executor: ssh")
	case v.Executor != "exec" && f.Sandbox != nil:
		return yamlfile.WithFix(fmt.Errorf("%s has no sandbox: it is for commands on this machine", v.Executor), "drop sandbox")
	case v.Executor == "http" && (f.Request == nil || len(f.Argv) > 0):
		return yamlfile.WithFix(errors.New("http needs a request, and has no argv"), "write request: {method: GET, path: [...]}")
	case v.Executor != "http" && f.Request != nil:
		return yamlfile.WithFix(fmt.Errorf("%s has no request", v.Executor), "use executor: http, or write an argv")
	case v.Executor != "http" && len(f.Argv) == 0:
		return yamlfile.WithFix(errors.New("argv is needed"), "write the command and its words as a list, as argv: [/usr/bin/uptime, -p]")
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
