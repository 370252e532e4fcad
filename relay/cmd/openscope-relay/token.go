package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"openscope/relay"
	"openscope/wire/term"
)

// tokensFile is the file of the tokens' public halves, in the state folder.
const tokensFile = "tokens"

func tokenCommand() *term.Command {
	state := defaultState
	define := func(fs *flag.FlagSet) {
		fs.StringVar(&state, "state", state, "the `DIR` of the tokens")
	}
	// with opens the tokens for a command.
	with := func(run func(env *term.Env, tokens *relay.TokenFile, name string) error) func(context.Context, *term.Env, []string) error {
		return func(_ context.Context, env *term.Env, args []string) error {
			tokens, err := relay.OpenTokenFile(filepath.Join(state, tokensFile))
			if err != nil {
				return term.Errorf(term.Config, "%w", err)
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return run(env, tokens, name)
		}
	}
	return &term.Command{
		Name: "token", Short: "who may stand at this relay", Flags: define,
		Subcommands: []*term.Command{
			{Name: "new", Args: "NAME", MinArgs: 1, MaxArgs: 1, Flags: define, Run: with(newToken), Short: "make a token; it is shown this once"},
			{Name: "list", Flags: define, Run: with(listTokens), Short: "list the tokens"},
			{Name: "revoke", Args: "NAME", MinArgs: 1, MaxArgs: 1, Flags: define, Run: with(revokeToken), Short: "take a token out; running sessions of it end"},
		},
	}
}

func newToken(env *term.Env, tokens *relay.TokenFile, name string) error {
	token, err := tokens.Add(name, rand.Reader)
	if errors.Is(err, relay.ErrTokenExists) {
		return term.Errorf(term.Denied, "there is a token %s already", name).
			WithHint("run: " + program + " token revoke " + name)
	}
	if errors.Is(err, relay.ErrTokenName) {
		return term.Errorf(term.Usage, "%w", err)
	}
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	shown := struct {
		Name  string `json:"name"`
		Token string `json:"token"`
	}{name, token.Text()}
	return env.Print(shown, func(w io.Writer) {
		fmt.Fprintln(w, shown.Token)
		fmt.Fprintln(env.Stderr, "shown this once; on the daemon's machine: openscope init --token -")
	})
}

func listTokens(env *term.Env, tokens *relay.TokenFile, _ string) error {
	entries, err := tokens.List()
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	for _, e := range entries {
		if err := env.Print(e, func(w io.Writer) {
			fmt.Fprintf(w, "%-24s made %s\n", e.Name, e.Created.UTC().Format(time.RFC3339))
		}); err != nil {
			return err
		}
	}
	return nil
}

func revokeToken(env *term.Env, tokens *relay.TokenFile, name string) error {
	err := tokens.Revoke(name)
	if errors.Is(err, relay.ErrNoToken) {
		return term.Errorf(term.NotFound, "there is no token %s", name).WithHint("run: " + program + " token list")
	}
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	return env.Print(struct {
		Revoked string `json:"revoked"`
	}{name}, func(w io.Writer) { fmt.Fprintf(w, "revoked %s\n", name) })
}
