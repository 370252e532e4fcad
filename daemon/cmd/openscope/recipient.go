package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func recipientCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "recipient", Short: "the registry of those who can be shared with",
		Subcommands: []*term.Command{
			recipientAddCommand(p),
			{Name: "list", Short: "list the registered recipients", Run: p.recipientList},
			{
				Name: "remove", Args: "ALIAS", MinArgs: 1, MaxArgs: 1, Run: p.recipientRemove,
				Short: "take a recipient out (root)", Complete: p.completes(p.aliases),
			},
		},
	}
}

func recipientAddCommand(p *paths) *term.Command {
	var note string
	replace := false
	return &term.Command{
		Name: "add", Args: "ALIAS KEY", MinArgs: 2, MaxArgs: 2, Short: "register a recipient's key (root)",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&note, "note", "", "a `TEXT` about who it is")
			fs.BoolVar(&replace, "replace", false, "the recipient really has a new key")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			key, err := env.Secret(args[1])
			if err != nil {
				return err
			}
			req := control.AddRecipientRequest{Alias: args[0], Key: key, Note: note, Replace: replace}
			if err := p.daemon().AddRecipient(ctx, req); err != nil {
				return err
			}
			return env.Print(control.RecipientInfo{Alias: req.Alias, Key: key, Note: note}, func(w io.Writer) {
				fmt.Fprintf(w, "registered %s\n", req.Alias)
			})
		},
	}
}

func (p *paths) recipientList(ctx context.Context, env *term.Env, _ []string) error {
	list, err := p.daemon().ListRecipients(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		if err := env.Print(r, func(w io.Writer) { fmt.Fprintf(w, "%-20s %s  %s\n", r.Alias, r.Key, term.Clean(r.Note)) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *paths) recipientRemove(ctx context.Context, env *term.Env, args []string) error {
	if err := p.daemon().RemoveRecipient(ctx, control.RemoveRecipientRequest{Alias: args[0]}); err != nil {
		return err
	}
	return env.Print(struct {
		Removed string `json:"removed"`
	}{args[0]}, func(w io.Writer) { fmt.Fprintf(w, "removed %s\n", args[0]) })
}
