package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func (p *paths) status(ctx context.Context, env *term.Env, _ []string) error {
	s, err := p.daemon().Status(ctx)
	if err != nil {
		return err
	}
	return env.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "up since %s, process %d\n", s.Started.Local().Format("2006-01-02 15:04:05"), s.PID)
		if !s.LogOK {
			fmt.Fprintln(w, "the log cannot be written: nothing runs")
		}
		if s.Lockdown != "" {
			fmt.Fprintln(w, term.Clean(s.Lockdown))
		}
		fmt.Fprintln(w, netLine(s.Network))
		fmt.Fprintf(w, "%d live sessions of yours\n", s.Sessions)
		if len(s.Relays) == 0 {
			fmt.Fprintln(w, "no relay is configured: nothing can be shared")
		}
		for _, r := range s.Relays {
			state := "connected by " + r.Rung
			if !r.Connected {
				state = "not connected: " + term.Clean(r.Problem)
			}
			fmt.Fprintf(w, "relay %s %s\n", r.Address, state)
		}
	})
}

// netLine says how the process is that faces the network.
func netLine(n control.NetworkStatus) string {
	switch {
	case n.Problem != "":
		return "net half: none, " + term.Clean(n.Problem)
	case n.PID == 0:
		return "net half: in the daemon's own process"
	}
	held := "held by nothing else"
	if n.Landlock {
		held = "held by Landlock"
	}
	return fmt.Sprintf("net half: process %d, user %s, %s, started again %d times", n.PID, n.User, held, n.Restarts)
}

func (p *paths) fingerprint(ctx context.Context, env *term.Env, _ []string) error {
	fp, err := p.daemon().Fingerprint(ctx)
	if err != nil {
		return err
	}
	return env.Print(fp, func(w io.Writer) {
		fmt.Fprintln(w, strings.Join(fp.Words, " "))
		fmt.Fprintln(w, fp.Hex)
	})
}

func verbsCommand(p *paths) *term.Command {
	var agent string
	return &term.Command{
		Name: "verbs", Short: "every verb an agent may call, with its parameters and their bounds",
		Complete: p.completes(nil),
		Flags:    func(fs *flag.FlagSet) { agentFlag(fs, &agent) },
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			if err := needAgent(agent); err != nil {
				return err
			}
			verbs, err := p.daemon().Verbs(ctx, control.VerbsRequest{Agent: agent})
			if err != nil {
				return err
			}
			shown := struct {
				Agent string             `json:"agent"`
				Verbs []control.VerbInfo `json:"verbs"`
			}{agent, verbs}
			return env.Print(shown, func(w io.Writer) {
				if len(verbs) == 0 {
					fmt.Fprintf(w, "agent %s may call nothing\n", agent)
				}
				printVerbs(w, verbs)
			})
		},
	}
}

// printVerbs shows each verb, what is pinned and what stays free.
func printVerbs(w io.Writer, verbs []control.VerbInfo) {
	for _, v := range verbs {
		fmt.Fprintf(w, "%s (%s)\n    %s\n", v.Name, v.Class, v.Summary)
		for _, q := range v.Params {
			note := ""
			switch {
			case q.Pinned:
				note = "  pinned"
			case q.Required:
				note = "  required"
			case q.Default != "":
				note = "  default " + q.Default
			}
			fmt.Fprintf(w, "    %s=%s%s\n", q.Name, q.Allowed, note)
		}
	}
}

func callCommand(p *paths) *term.Command {
	var agent string
	return &term.Command{
		Name: "call", Args: "VERB [name=value ...]", MinArgs: 1, MaxArgs: -1,
		Short:    "make one call, through the same chokepoint as everybody",
		Complete: p.completes(p.callWords),
		Flags:    func(fs *flag.FlagSet) { agentFlag(fs, &agent) },
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			if err := needAgent(agent); err != nil {
				return err
			}
			params, err := controlParams(args[1:])
			if err != nil {
				return err
			}
			return p.call(ctx, env, control.CallRequest{Agent: agent, Verb: args[0], Params: params})
		},
	}
}

func controlParams(words []string) ([]control.Param, error) {
	pairs, err := term.Params(words)
	if err != nil {
		return nil, err
	}
	params := []control.Param{}
	for _, p := range pairs {
		params = append(params, control.Param{Name: p[0], Value: p[1]})
	}
	return params, nil
}

func (p *paths) call(ctx context.Context, env *term.Env, req control.CallRequest) error {
	stdout, stderr := term.Foreign(env.Stdout), term.Foreign(env.Stderr)
	if env.JSON {
		stdout, stderr = term.JSONStream(env.Stdout, "stdout"), term.JSONStream(env.Stdout, "stderr")
	}
	r, err := p.daemon().Call(ctx, req, stdout, stderr)
	term.Flush(stdout, stderr)
	if ctx.Err() != nil {
		return term.Errorf(term.Interrupted, "%s was cancelled", req.Verb)
	}
	if err != nil {
		return err
	}
	if env.JSON {
		if err := term.WriteJSON(env.Stdout, r); err != nil {
			return err
		}
	}
	return callError(req.Verb, r)
}

// callError is how a call ended, with the exit code of the contract.
func callError(verb string, r control.CallResult) error {
	reason := ""
	if r.Reason != "" {
		reason = ": " + r.Reason
	}
	switch r.Cause {
	case "exited":
		if r.Status == 0 {
			return nil
		}
		return term.Errorf(term.Failed, "%s exited with status %d", verb, r.Status)
	case "failed", "timeout":
		return term.Errorf(term.Failed, "%s: %s%s", verb, r.Cause, reason)
	case "denied":
		return term.Errorf(term.Denied, "denied%s", reason).WithHint("run: openscope policy explain --agent AGENT " + verb)
	case "limit":
		return term.Errorf(term.Limited, "limited%s", reason)
	case "cancelled":
		return term.Errorf(term.Interrupted, "%s was cancelled", verb)
	}
	return term.Errorf(term.Over, "%s%s", r.Cause, reason)
}
