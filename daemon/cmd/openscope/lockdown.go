package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func lockdownCommand(p *paths) *term.Command {
	var reason string
	return &term.Command{
		Name: "lockdown", Short: "the kill switch: ends everything, and refuses everything until root lifts it",
		Subcommands: []*term.Command{
			{
				Name: "on", Short: "end every session and call now, also those of others",
				Flags: func(fs *flag.FlagSet) {
					fs.StringVar(&reason, "reason", "", "a `TEXT` for the log, and for whoever is refused")
				},
				Run: func(ctx context.Context, env *term.Env, _ []string) error {
					return p.lockdown(ctx, env, control.LockdownRequest{On: true, Reason: reason})
				},
			},
			{
				Name: "off", Short: "let sessions be opened again; needs root",
				Run: func(ctx context.Context, env *term.Env, _ []string) error {
					return p.lockdown(ctx, env, control.LockdownRequest{})
				},
			},
		},
	}
}

func (p *paths) lockdown(ctx context.Context, env *term.Env, req control.LockdownRequest) error {
	result, err := p.daemon().Lockdown(ctx, req)
	if err != nil {
		return err
	}
	shown := struct {
		Lockdown bool     `json:"lockdown"`
		Ended    []string `json:"ended"`
	}{req.On, result.Ended}
	return env.Print(shown, func(w io.Writer) {
		if !req.On {
			fmt.Fprintln(w, "lifted: sessions may be opened again")
			return
		}
		fmt.Fprintf(w, "in lockdown: %d sessions ended, nothing runs until root runs: openscope lockdown off\n", len(result.Ended))
	})
}
