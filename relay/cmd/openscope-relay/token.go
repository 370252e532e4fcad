package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"openscope/relay"
	"openscope/wire/term"
)

// tokensFile is the file of the tokens' public halves, in the state folder.
const tokensFile = "tokens"

func tokenCommand() *term.Command {
	var from tokenFlags
	var limits relay.TokenLimits
	var lifetime time.Duration
	// with opens the tokens for a command.
	with := func(run func(env *term.Env, tokens tokenStore, name string) error) func(context.Context, *term.Env, []string) error {
		return func(ctx context.Context, env *term.Env, args []string) error {
			tokens, err := from.open(ctx, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer tokens.Close()
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return run(env, tokens, name)
		}
	}
	create := func(env *term.Env, tokens tokenStore, name string) error {
		if err := checkTokenLimits(limits); err != nil || lifetime < 0 {
			return term.Errorf(term.Usage, "%w", errNegative)
		}
		e := relay.TokenEntry{Name: name, TokenLimits: limits}
		if lifetime > 0 {
			expires := time.Now().Add(lifetime).UTC().Truncate(time.Second)
			e.Expires = &expires
		}
		return newToken(env, tokens, e)
	}
	defineNew := func(fs *flag.FlagSet) {
		from.define(fs)
		fs.DurationVar(&lifetime, "expires", 0, "the token ends after this `DURATION` (never)")
		defineTokenLimits(fs, &limits, "")
	}
	known := func(ctx context.Context, at term.Completing) (all []term.Candidate) {
		if at.Flag != "" || len(at.Words) > 0 {
			return nil
		}
		_ = with(func(_ *term.Env, tokens tokenStore, _ string) error { // what cannot be read is not offered
			entries, err := tokens.List()
			for _, e := range entries {
				all = append(all, term.Candidate{Text: e.Name, About: "made " + e.Created.Format(time.DateOnly)})
			}
			return err
		})(ctx, at.Env, nil)
		return all
	}
	return &term.Command{
		Name: "token", Short: "who may stand at this relay", Flags: from.define,
		Subcommands: []*term.Command{
			{Name: "new", Args: "NAME", MinArgs: 1, MaxArgs: 1, Flags: defineNew, Run: with(create), Short: "make a token; it is shown this once"},
			{Name: "list", Flags: from.define, Run: with(listTokens), Short: "list the tokens"},
			{Name: "revoke", Args: "NAME", MinArgs: 1, MaxArgs: 1, Flags: from.define, Run: with(revokeToken), Complete: known, Short: "take a token out; running sessions of it end"},
		},
	}
}

func newToken(env *term.Env, tokens tokenStore, e relay.TokenEntry) error {
	token, err := tokens.AddLimited(e, rand.Reader)
	if errors.Is(err, relay.ErrTokenExists) {
		return term.Errorf(term.Denied, "there is a token %s already", e.Name).
			WithHint("run: " + program + " token revoke " + e.Name)
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
	}{e.Name, token.Text()}
	return env.Print(shown, func(w io.Writer) {
		fmt.Fprintln(w, shown.Token)
		fmt.Fprintln(env.Stderr, "shown this once; on the daemon's machine: openscope init --token -")
	})
}

func listTokens(env *term.Env, tokens tokenStore, _ string) error {
	entries, err := tokens.List()
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	for _, e := range entries {
		if err := env.Print(e, func(w io.Writer) {
			fmt.Fprintf(w, "%-24s made %s%s\n", e.Name, e.Created.UTC().Format(time.RFC3339), expiry(e, time.Now()))
		}); err != nil {
			return err
		}
	}
	return nil
}

func revokeToken(env *term.Env, tokens tokenStore, name string) error {
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

// expiry is what a list says of a token's end.
func expiry(e relay.TokenEntry, now time.Time) string {
	switch {
	case e.Expires == nil:
		return ""
	case now.Before(*e.Expires):
		return " expires " + e.Expires.UTC().Format(time.RFC3339)
	}
	return " EXPIRED " + e.Expires.UTC().Format(time.RFC3339)
}
