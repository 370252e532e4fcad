package daemon

import (
	"os"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
)

// jobOf is what a verb comes to with these values: everything but as whom, and
// where the output goes.
func jobOf(v *catalog.Verb, values map[string]string) executor.Job {
	job := executor.Job{Target: v.Target, Timeout: v.Timeout}
	if v.Sandbox != nil {
		s := executor.Sandbox(*v.Sandbox)
		job.Sandbox = &s
	}
	r := v.Request(values)
	if r == nil {
		job.Argv = v.Argv(values)
		return job
	}
	job.Request = &executor.Request{
		Method: r.Method, Segments: r.Segments, Query: fieldsOf(r.Query), Body: fieldsOf(r.Body),
		Form: r.Form, IssuerHeader: r.IssuerHeader,
	}
	return job
}

func fieldsOf(fields []catalog.Field) []executor.Field {
	var all []executor.Field
	for _, f := range fields {
		all = append(all, executor.Field(f))
	}
	return all
}

func httpTarget(t catalog.HTTPTarget) (executor.HTTPTarget, error) {
	target := executor.HTTPTarget{URL: t.URL, Headers: t.Headers, SecretHeaders: t.SecretHeaders}
	if t.CAFile == "" {
		return target, nil
	}
	var err error
	target.CA, err = policy.ReadProtected(t.CAFile, os.Geteuid())
	return target, err
}

// secrets are the daemon's own credentials as they are now, to be kept out of
// the output of a call by issuer: whatever a verb prints, it prints none of
// these. They are read anew for each call, for they may change at any time.
func (c *core) secrets(r *rules, issuer string) *executor.Secrets {
	all := append(r.ssh.Credentials(issuer), r.http.Credentials()...)
	all = append(all, []byte(keyText(identityPrefix, c.identity.Reveal().Seed())))
	all = append(all, []byte(keyText(checkpointPrefix, c.logKey.Reveal().Seed())))
	if len(c.cfg.Relays) > 0 {
		all = append(all, []byte(c.cfg.Token.Text()))
	}
	return executor.NewSecrets(all...)
}
