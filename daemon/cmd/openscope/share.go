package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func shareCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "share", Short: "open, watch over and end sessions",
		Subcommands: []*term.Command{
			shareOpenCommand(p),
			{
				Name: "confirm", Args: "ID WORDS", MinArgs: 2, MaxArgs: 5, Run: p.shareConfirm,
				Short:    "confirm the words that the recipient of a bearer session reads to you",
				Complete: p.completes(p.sessions),
			},
			shareListCommand(p),
			{Name: "show", Args: "ID", MinArgs: 1, MaxArgs: 1, Run: p.shareShow, Short: "everything about one session", Complete: p.completes(p.everySession)},
			shareExtendCommand(p),
			shareRevokeCommand(p),
			shareWatchCommand(p),
			{
				Name: "approve", Args: "CALL", MinArgs: 1, MaxArgs: 1, Short: "let one waiting call run, once", Complete: p.completes(p.waitingCalls),
				Run: func(ctx context.Context, env *term.Env, args []string) error {
					return p.shareAnswer(ctx, env, control.AnswerRequest{Call: args[0], Approve: true})
				},
			},
			shareDenyCommand(p),
		},
	}
}

// openFlags are the flags of share open.
type openFlags struct {
	agent, to, note           string
	verbs, approve            term.List
	ttl                       term.TTL
	maxCalls                  uint
	maxOutput                 term.Bytes
	bearer, noConfirm, dryRun bool
}

func shareOpenCommand(p *paths) *term.Command {
	f := new(openFlags)
	return &term.Command{
		Name: "open", Short: "open a session on some of your verbs, and print the handle for the recipient",
		Long: `A SPEC is a verb, like ssh.tail_logs, with what each parameter is held to after a
colon: name=value pins it, name=a|b keeps a set, name=1..10 a range of integers,
name^=web- a prefix; more parameters after commas. A value with , | " or \ goes in
double quotes.`,
		Flags: f.define, Complete: p.completes(nil),
		Run: func(ctx context.Context, env *term.Env, _ []string) error { return p.shareOpen(ctx, env, f) },
	}
}

func (f *openFlags) define(fs *flag.FlagSet) {
	agentFlag(fs, &f.agent)
	fs.Var(&f.verbs, "verb", "a `SPEC` of what may be called; may be given several times")
	fs.StringVar(&f.to, "to", "", "the `ALIAS` of a registered recipient")
	fs.BoolVar(&f.bearer, "bearer", false, "for whoever uses the handle first, once you confirm their words")
	fs.Var(&f.ttl, "ttl", "how `LONG` it lasts, at most 30m (the default, or the grant's lower limit)")
	fs.Var(&f.approve, "approve", "ask you before each call of this `VERB`; may be given several times")
	fs.UintVar(&f.maxCalls, "max-calls", 0, "at most this `NUMBER` of calls")
	fs.Var(&f.maxOutput, "max-output", "at most this many `BYTES` of output per call, like 4MiB")
	fs.BoolVar(&f.noConfirm, "no-confirm", false, "with --bearer: do not wait for confirmed words, where the grant allows it")
	fs.StringVar(&f.note, "note", "", "a `TEXT` for the list and the log")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print exactly what the outsider could do, and open nothing")
}

func (f *openFlags) request() (control.OpenRequest, error) {
	req := control.OpenRequest{
		Agent: f.agent, Specs: f.verbs, To: f.to, Bearer: f.bearer, TTL: time.Duration(f.ttl),
		MaxCalls: uint32(f.maxCalls), MaxOutput: uint64(f.maxOutput), NoConfirm: f.noConfirm, Note: f.note, Approve: f.approve, DryRun: f.dryRun,
	}
	switch {
	case f.agent == "":
		return req, needAgent(f.agent)
	case len(f.verbs) == 0:
		return req, term.Errorf(term.Usage, "at least one --verb is needed").WithHint("run: openscope verbs --agent " + f.agent)
	case f.bearer == (f.to != ""):
		return req, term.Errorf(term.Usage, "exactly one of --to and --bearer is needed").WithHint("run: openscope recipient list")
	case f.noConfirm && !f.bearer:
		return req, term.Errorf(term.Usage, "--no-confirm is for --bearer only")
	case f.maxCalls > 1<<31:
		return req, term.Errorf(term.Usage, "--max-calls: %d is too many", f.maxCalls)
	}
	return req, nil
}

func (p *paths) shareOpen(ctx context.Context, env *term.Env, f *openFlags) error {
	req, err := f.request()
	if err != nil {
		return err
	}
	opened, err := p.daemon().OpenShare(ctx, req)
	if err != nil {
		return err
	}
	for _, warning := range opened.Warnings {
		fmt.Fprintln(env.Stderr, "warning:", warning)
	}
	return env.Print(opened, func(w io.Writer) { printOpened(w, opened, f) })
}

func printOpened(w io.Writer, o control.OpenResult, f *openFlags) {
	to := f.to
	if f.bearer {
		to = "whoever uses the handle first"
	}
	if f.dryRun {
		fmt.Fprintf(w, "nothing was opened. %s could, until %s, run as you:\n\n", to, clock(o.Expires))
	} else {
		fmt.Fprintf(w, "session      %s, for %s, until %s (at the latest %s)\n\n", o.ID, to, clock(o.Expires), clock(o.HardLimit))
	}
	printVerbs(w, o.Verbs)
	if len(o.Approve) > 0 {
		fmt.Fprintf(w, "\nasked first  %s: each call waits for openscope share approve CALL\n", strings.Join(o.Approve, ", "))
	}
	for i, c := range o.DryRun {
		if i == 0 || o.DryRun[i-1].Verb != c.Verb {
			fmt.Fprintf(w, "\n%s comes to\n", c.Verb)
		}
		fmt.Fprintf(w, "    %s\n", c.Line)
	}
	if f.dryRun {
		return
	}
	fmt.Fprintf(w, "\nfingerprint  send these by another way than the handle: read them out on the phone\n\n")
	fmt.Fprintf(w, "             %s\n", strings.Join(o.Words, " "))
	fmt.Fprintf(w, "\nhandle       %s\n\nthey run     openscope-reflect-client --passport %s\n", string(o.Handle), string(o.Handle))
	if f.bearer && !f.noConfirm {
		fmt.Fprintf(w, "then         openscope share confirm %s WORDS, with the four words they read to you\n", o.ID)
	}
	fmt.Fprintf(w, "to end it    openscope share revoke %s\n", o.ID)
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }

func (p *paths) shareConfirm(ctx context.Context, env *term.Env, args []string) error {
	req := control.ConfirmRequest{ID: args[0], Words: strings.Join(args[1:], " ")}
	if err := p.daemon().ConfirmShare(ctx, req); err != nil {
		return err
	}
	return env.Print(struct {
		Confirmed string `json:"confirmed"`
	}{req.ID}, func(w io.Writer) { fmt.Fprintf(w, "confirmed: calls of %s may run now\n", req.ID) })
}

func shareListCommand(p *paths) *term.Command {
	all := false
	return &term.Command{
		Name: "list", Short: "your live sessions",
		Flags: func(fs *flag.FlagSet) { fs.BoolVar(&all, "all", false, "ended ones too") },
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			list, err := p.daemon().ListShares(ctx, control.ListRequest{All: all})
			if err != nil {
				return err
			}
			if len(list) == 0 && !env.JSON {
				fmt.Fprintln(env.Stderr, "no sessions")
			}
			for _, s := range list {
				if err := env.Print(s, func(w io.Writer) { printShare(w, s) }); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// printShare is a session on one line, and its verbs below.
func printShare(w io.Writer, s control.Share) {
	left := (time.Duration(s.RemainingS) * time.Second).String() + " left"
	if s.State == "ended" {
		left = "ended (" + s.Cause + ")"
	}
	to := s.Recipient
	if s.Parent != "" {
		to += " (" + s.Parent + ") -> their agent"
	}
	fmt.Fprintf(w, "%s  %s as %s -> %s  %s  %s  %d calls", s.ID, s.Issuer, s.Agent, to, s.State, left, s.Calls)
	if s.Refused > 0 {
		fmt.Fprintf(w, ", %d refused", s.Refused)
	}
	if s.LastCall != "" {
		fmt.Fprintf(w, ", last %s", term.Clean(s.LastCall))
	}
	fmt.Fprintln(w)
	for _, v := range s.Verbs {
		fmt.Fprintf(w, "    %s\n", v)
	}
	if len(s.Outcomes) > 0 {
		fmt.Fprintf(w, "    calls ended: %s\n", outcomes(s))
	}
	for _, c := range s.Running {
		fmt.Fprintf(w, "    runs since %s: %s%s\n", clock(c.Since), c.Verb, term.Clean(paramsText(c.Params)))
	}
	for _, c := range s.Waiting {
		if c.Asked != nil {
			printAsked(w, c)
			continue
		}
		fmt.Fprintf(w, "    %s waits since %s: %s%s\n", c.Call, clock(c.Since), c.Verb, term.Clean(paramsText(c.Params)))
		fmt.Fprintf(w, "        %s\n        openscope share approve %s, or deny %s\n", term.Clean(c.Line), c.Call, c.Call)
	}
	if s.Error != "" {
		fmt.Fprintf(w, "    error: %s\n", term.Clean(s.Error))
	}
}

// printAsked is a request for more: what, why, and what there is of it already.
func printAsked(w io.Writer, c control.WaitingCall) {
	fmt.Fprintf(w, "    %s asks since %s: %s\n", c.Call, clock(c.Since), term.Clean(c.Asked.Reason))
	for _, has := range c.Asked.Has {
		fmt.Fprintf(w, "          %s\n", term.Clean(has))
	}
	for _, adds := range c.Asked.Adds {
		fmt.Fprintf(w, "        + %s\n", term.Clean(adds))
	}
	fmt.Fprintf(w, "        openscope share approve %s, or deny %s\n", c.Call, c.Call)
}

func paramsText(params []control.Param) string {
	var text strings.Builder
	for _, p := range params {
		fmt.Fprintf(&text, " %s=%s", p.Name, p.Value)
	}
	return text.String()
}

func shareDenyCommand(p *paths) *term.Command {
	var reason string
	return &term.Command{
		Name: "deny", Args: "CALL", MinArgs: 1, MaxArgs: 1, Short: "refuse one waiting call", Complete: p.completes(p.waitingCalls),
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&reason, "reason", "", "a `TEXT` for the recipient and the log")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			return p.shareAnswer(ctx, env, control.AnswerRequest{Call: args[0], Reason: reason})
		},
	}
}

func (p *paths) shareAnswer(ctx context.Context, env *term.Env, req control.AnswerRequest) error {
	if err := p.daemon().AnswerCall(ctx, req); err != nil {
		return err
	}
	shown := struct {
		Call     string `json:"call"`
		Approved bool   `json:"approved"`
	}{req.Call, req.Approve}
	return env.Print(shown, func(w io.Writer) {
		if req.Approve {
			fmt.Fprintf(w, "approved: %s runs now\n", req.Call)
		} else {
			fmt.Fprintf(w, "refused %s\n", req.Call)
		}
	})
}

func (p *paths) shareShow(ctx context.Context, env *term.Env, args []string) error {
	list, err := p.daemon().ListShares(ctx, control.ListRequest{ID: args[0]})
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := env.Print(s, func(w io.Writer) {
			printShare(w, s)
			if s.Key != "" {
				fmt.Fprintf(w, "    for the key %s\n", s.Key)
			}
			fmt.Fprintf(w, "    opened %s, ends %s, %d connections", clock(s.Opened), clock(s.Expires), s.Connections)
			if s.From != "" {
				fmt.Fprintf(w, ", last from %s", term.Clean(s.From))
			}
			if s.Note != "" {
				fmt.Fprintf(w, "\n    note: %s", term.Clean(s.Note))
			}
			fmt.Fprintln(w)
		}); err != nil {
			return err
		}
	}
	return nil
}

func shareExtendCommand(p *paths) *term.Command {
	var ttl term.TTL
	var verbs term.List
	return &term.Command{
		Name: "extend", Args: "ID", MinArgs: 1, MaxArgs: 1,
		Short:    "let a session last longer, never past 30 minutes after it was opened, or share more verbs in it",
		Complete: p.completes(p.sessions),
		Flags: func(fs *flag.FlagSet) {
			fs.Var(&ttl, "ttl", "how `LONG` from now")
			fs.Var(&verbs, "verb", "one more `SPEC`; may be given several times")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			extended, err := p.daemon().ExtendShare(ctx, control.ExtendRequest{ID: args[0], TTL: time.Duration(ttl), Specs: verbs})
			if err != nil {
				return err
			}
			return env.Print(extended, func(w io.Writer) {
				printExtended(w, args[0], extended)
			})
		},
	}
}

// printExtended is the difference.
func printExtended(w io.Writer, id string, e control.ExtendResult) {
	fmt.Fprintf(w, "%s lasts until %s", id, clock(e.Expires))
	switch moved := e.Expires.Sub(e.Before).Round(time.Second); {
	case moved > 0:
		fmt.Fprintf(w, ", %s longer (it was %s)", moved, clock(e.Before))
	case moved < 0:
		fmt.Fprintf(w, ", %s shorter (it was %s)", -moved, clock(e.Before))
	}
	fmt.Fprintln(w)
	for _, v := range e.Added {
		fmt.Fprintf(w, "    + %s\n", v)
	}
}

func shareRevokeCommand(p *paths) *term.Command {
	var reason string
	all := false
	return &term.Command{
		Name: "revoke", Args: "ID|--all", MaxArgs: 1, Short: "end a session now: running work is killed",
		Complete: p.completes(p.sessions),
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&all, "all", false, "every live session of yours")
			fs.StringVar(&reason, "reason", "", "a `TEXT` for the recipient and the log")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			req := control.RevokeRequest{All: all, Reason: reason}
			if all == (len(args) == 1) {
				return term.Errorf(term.Usage, "a session's id or --all is needed").WithHint("run: openscope share list")
			}
			if len(args) == 1 {
				req.ID = args[0]
			}
			revoked, err := p.daemon().RevokeShare(ctx, req)
			if err != nil {
				return err
			}
			return env.Print(revoked, func(w io.Writer) {
				for _, id := range revoked.Revoked {
					fmt.Fprintln(w, "revoked", id)
				}
			})
		},
	}
}
