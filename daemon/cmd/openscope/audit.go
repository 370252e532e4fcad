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
			{
				Name: "show", Args: "SESSION", MinArgs: 1, MaxArgs: 1, Short: "every entry about one session", Complete: p.completes(p.everySession),
				Run: func(ctx context.Context, env *term.Env, args []string) error {
					return p.showLog(ctx, env, control.AuditRequest{Session: args[0]})
				},
			},
			{Name: "verify", Args: "[FILE]", MaxArgs: 1, Run: p.auditVerify, Short: "hold every entry to the chain; names the first bad one"},
		},
	}
}

func auditTailCommand(p *paths) *term.Command {
	follow := false
	return &term.Command{
		Name: "tail", Short: "the newest entries",
		Flags: func(fs *flag.FlagSet) { fs.BoolVar(&follow, "f", false, "go on with what is appended") },
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			return p.showLog(ctx, env, control.AuditRequest{Lines: tailLines, Follow: follow})
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
		words = append(words, p.Name+"="+p.Value)
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
