package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
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
// one, and empty denies all; anything else wrong is an error.
func (c *core) loadRules() (*rules, error) {
	r := &rules{policy: policy.Empty()}
	grants, err := readOptional(c.cfg.Grants)
	if err != nil {
		return nil, err
	}
	if grants != nil {
		if r.policy, err = policy.Parse(c.cfg.Grants, grants); err != nil {
			return nil, err
		}
	}
	verbs, err := readOptional(c.cfg.Verbs)
	if err != nil {
		return nil, err
	}
	if r.catalog, err = catalog.Parse(c.cfg.Verbs, verbs); err != nil {
		return nil, err
	}
	if err := r.policy.Check(r.catalog.Schema()); err != nil {
		return nil, err
	}
	recipients, err := readOptional(c.cfg.Recipients)
	if err != nil {
		return nil, err
	}
	if r.recipients, err = policy.ParseRecipients(c.cfg.Recipients, recipients); err != nil {
		return nil, err
	}
	for alias, known := range r.recipients {
		key, err := handle.ParseRecipientKey(known.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.cfg.Recipients, alias, err)
		}
		known.Key = key.Text() // the one way to write it, to be compared
		r.recipients[alias] = known
	}
	if err := r.setExecutors(c.cfg.Verbs); err != nil {
		return nil, err
	}
	// A new way to execute is a file in the executor package and a line here.
	r.executors = map[string]executor.Executor{
		"exec": c.local,
		"ssh":  r.ssh,
		"http": r.http,
	}
	return r, nil
}

// setExecutors builds the executors that have targets, as the verbs file name
// says.
func (r *rules) setExecutors(name string) (err error) {
	if r.ssh, err = executor.NewSSH(executor.SSHConfig{Targets: sshTargets(r.catalog)}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	services, err := httpTargets(r.catalog)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if r.http, err = executor.NewHTTP(executor.HTTPConfig{Targets: services}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
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
