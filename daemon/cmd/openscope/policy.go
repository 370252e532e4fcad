package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"openscope/daemon"
	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func policyCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "policy", Short: "check grants and verbs, and ask which rule decides",
		Subcommands: []*term.Command{policyCheckCommand(p), policyExplainCommand(p)},
	}
}

func policyCheckCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "check", Args: "[FILE]", MaxArgs: 1,
		Short: "read a file as the daemon would, or without one the configuration and all it names",
		Run: func(_ context.Context, env *term.Env, args []string) error {
			checked := struct {
				File string `json:"file"`
				Kind string `json:"kind"`
			}{p.config, "configuration, grants, verbs and recipients"}
			if err := p.check(args, &checked.File, &checked.Kind); err != nil {
				return tellMistakes(env, err)
			}
			return env.Print(checked, func(w io.Writer) { fmt.Fprintf(w, "%s: good (%s)\n", checked.File, checked.Kind) })
		},
	}
}

// mistake is one thing that is wrong, as --json has it.
type mistake struct {
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

// tellMistakes prints all that is wrong, each with its fix, as the findings they
// are; the error that the command ends with is the first, and how many follow.
func tellMistakes(env *term.Env, err error) error {
	var all []mistake
	for _, one := range daemon.Mistakes(err) {
		all = append(all, mistake{Problem: one.Error(), Fix: daemon.Fix(one)})
	}
	printErr := env.Print(map[string]any{"mistakes": all}, func(w io.Writer) {
		if len(all) == 1 {
			return // the error says it
		}
		for _, m := range all {
			fmt.Fprintf(w, "%s\n  fix: %s\n", term.OneLine(m.Problem), term.OneLine(m.Fix))
		}
	})
	if printErr != nil {
		return printErr
	}
	return term.Errorf(term.Config, "%w", err).WithHint(daemon.Fix(err))
}

func (p *paths) check(args []string, file, kind *string) (err error) {
	if len(args) == 1 {
		*file = args[0]
		*kind, err = daemon.CheckFile(args[0])
		return err
	}
	cfg, err := daemon.LoadConfig(p.config)
	if err != nil {
		return err
	}
	return daemon.Check(cfg)
}

func policyExplainCommand(p *paths) *term.Command {
	var agent string
	return &term.Command{
		Name: "explain", Args: "VERB [name=value ...]", MinArgs: 1, MaxArgs: -1,
		Short:    "which rule decides about a call, and why; nothing is called",
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
			e, err := p.daemon().Explain(ctx, control.ExplainRequest{Agent: agent, Verb: args[0], Params: params})
			if err != nil {
				return err
			}
			return env.Print(e, func(w io.Writer) {
				verdict := "denied"
				if e.Allowed {
					verdict = "allowed"
				}
				fmt.Fprintf(w, "%s by %s\n", verdict, e.Rule)
				if e.Reason != "" {
					fmt.Fprintln(w, term.Clean(e.Reason))
				}
			})
		},
	}
}
