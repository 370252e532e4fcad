package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// tailLines is how many entries audit tail begins with.
const tailLines = 50

func auditCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "audit", Short: "read and verify the log",
		Subcommands: []*term.Command{
			auditTailCommand(p),
			auditShowCommand(p),
			auditReportCommand(p),
			{Name: "verify", Args: "[FILE]", MaxArgs: 1, Run: p.auditVerify, Short: "hold every entry to the chain; names the first bad one"},
		},
	}
}

func auditTailCommand(p *paths) *term.Command {
	var f filters
	return &term.Command{
		Name: "tail", Short: "the newest entries",
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&f.req.Follow, "f", false, "go on with what is appended")
			f.define(fs)
		},
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			f.req.Lines = tailLines
			return p.showFiltered(ctx, env, f)
		},
	}
}

func auditShowCommand(p *paths) *term.Command {
	var f filters
	return &term.Command{
		Name: "show", Args: "SESSION", MinArgs: 1, MaxArgs: 1, Short: "every entry about one session", Complete: p.completes(p.everySession),
		Flags: f.define,
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			f.req.Session = args[0]
			return p.showFiltered(ctx, env, f)
		},
	}
}

// filters are which entries are asked for.
type filters struct {
	req   control.AuditRequest
	since time.Duration
}

func (f *filters) define(fs *flag.FlagSet) {
	fs.StringVar(&f.req.Kind, "kind", "", "only entries of this `KIND`, like call, result or deny")
	fs.StringVar(&f.req.Verb, "verb", "", "only entries about this `VERB`")
	fs.StringVar(&f.req.Call, "call", "", "only entries about the call with this `ID`")
	fs.BoolVar(&f.req.Denied, "denied", false, "only what was refused")
	fs.DurationVar(&f.since, "since", 0, "only entries of the last `D`, like 30m")
}

func (p *paths) showFiltered(ctx context.Context, env *term.Env, f filters) error {
	if f.since < 0 {
		return term.Errorf(term.Usage, "--since %s lies ahead", f.since)
	}
	if f.since > 0 {
		f.req.Since = time.Now().Add(-f.since)
	}
	return p.showLog(ctx, env, f.req)
}

func auditReportCommand(p *paths) *term.Command {
	format := ""
	return &term.Command{
		Name: "report", Args: "SESSION", MinArgs: 1, MaxArgs: 1, Short: "the signed record of one session, for a ticket",
		Complete: p.completes(p.everySession),
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&format, "format", "", "the `FORMAT`: md, html or json; md if nothing is said")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			switch {
			case format == "" && env.JSON:
				format = "json"
			case format == "":
				format = "md"
			case env.JSON && format != "json":
				return term.Errorf(term.Usage, "--json and --format %s ask for two things", format)
			}
			return p.daemon().AuditReport(ctx, control.ReportRequest{Session: args[0], Format: format}, env.Stdout)
		},
	}
}

func (p *paths) showLog(ctx context.Context, env *term.Env, req control.AuditRequest) error {
	if env.JSON {
		return p.daemon().AuditTail(ctx, req, env.Stdout)
	}
	lines, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := p.daemon().AuditTail(ctx, req, w)
		_ = w.Close()
		done <- err
	}()
	err := printEntries(env.Stdout, lines)
	_ = lines.CloseWithError(err)
	return errors.Join(err, <-done)
}

// entry is what people see of an entry.
type entry struct {
	Time     time.Time     `json:"time"`
	Kind     string        `json:"kind"`
	Session  string        `json:"session"`
	Issuer   *audit.Issuer `json:"issuer"`
	To       string        `json:"recipient"`
	Verb     string        `json:"verb"`
	Params   []audit.Param `json:"params"`
	Decision string        `json:"decision"`
	Rule     string        `json:"rule"`
	Cause    string        `json:"cause"`
	Reason   string        `json:"reason"`
	Status   *int          `json:"status"`
	Count    int           `json:"count"`
}

func printEntries(w io.Writer, lines io.Reader) error {
	scanner := bufio.NewScanner(lines)
	scanner.Buffer(nil, 8<<20)
	for scanner.Scan() {
		var e entry
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if _, err := fmt.Fprintln(w, term.Clean(e.line())); err != nil {
			return err
		}
	}
	return scanner.Err()
}

// param is a parameter of the call as it is typed, or where no verb was called,
// a verb that a session has been given.
func (e entry) param(p audit.Param) string {
	if e.Verb != "" {
		return p.Name + "=" + p.Value
	}
	return strings.TrimSuffix(p.Name+":"+p.Value, ":")
}

func (e entry) line() string {
	words := []string{e.Time.Local().Format("2006-01-02 15:04:05"), fmt.Sprintf("%-8s", e.Kind), e.Session}
	if e.Issuer != nil {
		words = append(words, e.Issuer.User+"/"+e.Issuer.Agent)
	}
	if e.To != "" {
		words = append(words, "-> "+e.To)
	}
	words = append(words, e.Verb)
	for _, p := range e.Params {
		words = append(words, e.param(p))
	}
	words = append(words, e.Decision, e.Cause)
	if e.Status != nil {
		words = append(words, fmt.Sprintf("status %d", *e.Status))
	}
	if e.Reason != "" {
		words = append(words, "("+e.Reason+")")
	}
	if e.Rule != "" {
		words = append(words, "by "+e.Rule)
	}
	if e.Count > 1 {
		words = append(words, fmt.Sprintf("%d times", e.Count))
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
