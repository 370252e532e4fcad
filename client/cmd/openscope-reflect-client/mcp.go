package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"openscope/client"
	"openscope/client/mcp"
	"openscope/passport"
	"openscope/wire/term"
)

func mcpCommand(o *options) *term.Command {
	var verbs term.List
	return &term.Command{
		Name: "mcp", Short: "serve the verbs as tools to an agent, over MCP on standard input and output",
		Flags: func(fs *flag.FlagSet) {
			o.define(fs)
			fs.Var(&verbs, "verb", "offer only this `SPEC`, app.verb or app.verb:name=value,...; may be repeated")
		},
		Run: func(ctx context.Context, env *term.Env, _ []string) error { return o.mcp(ctx, env, verbs) },
		Long: `The daemon's fingerprint must be known already, or given with --fingerprint:
there is nobody to ask. The agent's host starts this command; client/README.md
has what to paste into its configuration.`,
	}
}

// mcp is the mcp command.
func (o *options) mcp(ctx context.Context, env *term.Env, verbs []string) error {
	only, err := readSpecs(verbs)
	if err != nil {
		return err
	}
	if o.passport == "-" {
		return term.Errorf(term.Usage, "standard input belongs to the agent, so the handle cannot come from there").
			WithHint("give the handle as @file")
	}
	in, inOK := env.Stdin.(io.ReadCloser)
	out, outOK := env.Stdout.(io.WriteCloser)
	if !inOK || !outOK {
		return errors.New("mcp: standard input and output cannot be closed")
	}
	var server atomic.Pointer[mcp.Server]
	changed := func(*passport.Passport) {
		if s := server.Load(); s != nil {
			s.Changed()
		}
	}
	session, bearer, err := o.connectWith(ctx, env, nil, changed, func(text string) { fmt.Fprintln(env.Stderr, text) })
	if err != nil {
		return err
	}
	defer o.leave(session)
	if err := o.checkSpecs(session, only); err != nil {
		return err
	}
	s := mcp.New(mcp.Config{Version: version, Only: only, Bearer: bearer, Rand: rand.Reader, Logger: env.Logger(slog.LevelWarn)}, session)
	server.Store(s)
	s.Changed() // what came between the two
	switch err := s.Run(ctx, in, out); {
	case err == nil:
		return nil
	case session.Err() != nil && errors.Is(err, session.Err()):
		return sessionError(session)
	default:
		return err
	}
}

func readSpecs(texts []string) ([]passport.Spec, error) {
	var specs []passport.Spec
	for _, text := range texts {
		spec, err := passport.ParseSpec(text)
		if err != nil {
			return nil, term.Errorf(term.Usage, "--verb %s: %w", text, err)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// checkSpecs refuses to offer what was not shared: whoever wrote the line
// believes that it is.
func (o *options) checkSpecs(s *client.Session, specs []passport.Spec) error {
	_, err := s.Passport().Grant.Narrow(specs, passport.Limits{})
	if err == nil {
		return nil
	}
	code := term.Denied
	if errors.Is(err, passport.ErrSpec) {
		code = term.Usage
	}
	return term.Errorf(code, "%w", err).WithHint("run: " + program + " verbs")
}
