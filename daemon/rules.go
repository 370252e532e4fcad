package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/yamlfile"
	"openscope/wire/handle"
)

// rules are the root-owned files as they were last read: they change together
// or not at all.
type rules struct {
	policy     *policy.Policy
	catalog    *catalog.Catalog
	recipients map[string]policy.Recipient
	executors  map[string]executor.Executor
	ssh        *executor.SSH // of the executors, those that have credentials
	http       *executor.HTTP
	lockdown   *lockdown // nil: off
}

// loadRules reads grants, verbs and recipients. A missing file is an empty
// one, and empty denies all; anything else wrong is an error, a
// [yamlfile.Mistakes] of all of it.
func (c *core) loadRules() (*rules, error) {
	r := &rules{policy: policy.Empty()}
	wrong := append(r.loadGrants(c.cfg.Grants), r.loadVerbs(c.cfg.Verbs)...)
	if len(wrong) == 0 {
		wrong = flat(r.policy.Check(r.catalog.Schema()))
	}
	wrong = append(wrong, r.loadRecipients(c.cfg.Recipients)...)
	if len(wrong) > 0 {
		return nil, wrong
	}
	// A new way to execute is a file in the executor package and a line here.
	r.executors = map[string]executor.Executor{
		"exec": c.local,
		"ssh":  r.ssh,
		"http": r.http,
	}
	return r, nil
}

func (r *rules) loadGrants(path string) yamlfile.Mistakes {
	grants, err := readOptional(path)
	if err != nil || grants == nil {
		return flat(err)
	}
	r.policy, err = policy.Parse(path, grants)
	return flat(err)
}

func (r *rules) loadVerbs(path string) yamlfile.Mistakes {
	verbs, err := readOptional(path)
	if err != nil {
		return flat(err)
	}
	if r.catalog, err = catalog.Parse(path, verbs); err != nil {
		return flat(err)
	}
	return flat(r.setExecutors())
}

func (r *rules) loadRecipients(path string) yamlfile.Mistakes {
	recipients, err := readOptional(path)
	if err != nil {
		return flat(err)
	}
	if r.recipients, err = policy.ParseRecipients(path, recipients); err != nil {
		return flat(err)
	}
	for alias, known := range r.recipients {
		key, err := handle.ParseRecipientKey(known.Key)
		if err != nil {
			return flat(fmt.Errorf("%s: %s: %w", path, alias, err))
		}
		known.Key = key.Text() // the one way to write it, to be compared
		r.recipients[alias] = known
	}
	return nil
}

// setExecutors builds the executors that have targets. Each target is tried by
// itself first, so that what is wrong can be said where it stands.
func (r *rules) setExecutors() error {
	var wrong yamlfile.Mistakes
	machines := sshTargets(r.catalog)
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		if _, err := executor.NewSSH(executor.SSHConfig{Targets: map[string]executor.SSHTarget{name: machines[name]}}); err != nil {
			wrong = append(wrong, flat(r.catalog.Mistake("ssh", name, err))...)
		}
	}
	services := make(map[string]executor.HTTPTarget)
	for _, name := range slices.Sorted(maps.Keys(r.catalog.HTTPTargets())) {
		service, err := httpTarget(r.catalog.HTTPTargets()[name])
		if err == nil {
			_, err = executor.NewHTTP(executor.HTTPConfig{Targets: map[string]executor.HTTPTarget{name: service}})
		}
		if err != nil {
			wrong = append(wrong, flat(r.catalog.Mistake("http", name, err))...)
		}
		services[name] = service
	}
	if len(wrong) > 0 {
		return wrong
	}
	var err error
	if r.ssh, err = executor.NewSSH(executor.SSHConfig{Targets: machines}); err != nil {
		return err
	}
	r.http, err = executor.NewHTTP(executor.HTTPConfig{Targets: services})
	return err
}

func readOptional(path string) ([]byte, error) {
	data, err := policy.ReadProtected(path, os.Geteuid())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func sshTargets(c *catalog.Catalog) map[string]executor.SSHTarget {
	targets := make(map[string]executor.SSHTarget)
	for name, t := range c.SSHTargets() {
		targets[name] = executor.SSHTarget{Host: t.Host, Port: t.Port, User: t.User, KeyFile: t.KeyFile, HostKey: t.HostKey, MaxSessions: t.MaxSessions}
	}
	return targets
}
