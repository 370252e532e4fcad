package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/term"
)

func callCommand(o *options) *term.Command {
	var opts callOptions
	return &term.Command{
		Name: "call", Short: "make one call", Args: "VERB [name=value ...]",
		Flags: func(fs *flag.FlagSet) {
			o.define(fs)
			fs.BoolVar(&opts.raw, "raw", false, "where the output does not go to a terminal, write its bytes as they come: else what a terminal acts on is made visible")
		},
		MinArgs: 1, MaxArgs: -1,
		Run: func(ctx context.Context, env *term.Env, args []string) error { return o.call(ctx, env, args, opts) },
		Long: `The verb's stdout goes to stdout and its stderr to stderr. A parameter that the
passport pins may be left out. Ctrl-C, and a reader that goes away, cancel the
remote work.`,
	}
}

// call is the call command.
func (o *options) call(ctx context.Context, env *term.Env, args []string, opts callOptions) error {
	params, err := readParams(args[1:])
	if err != nil {
		return err
	}
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer o.leave(s)
	params = client.Fill(client.Alternatives(s.Passport(), args[0]), params)
	return runCall(ctx, env, s, args[0], params, opts)
}

// callOptions are how a call's output is shown.
type callOptions struct {
	raw   bool
	meter *atomic.Pointer[meter] // where it can be found while the call runs; may be nil
}

func readParams(words []string) ([]call.Param, error) {
	pairs, err := term.Params(words)
	if err != nil {
		return nil, err
	}
	params := make([]call.Param, len(pairs))
	for i, p := range pairs {
		params[i] = call.Param{Name: p[0], Value: p[1]}
	}
	return params, nil
}

// runCall makes one call, streams its output, and turns its end into an error
// with the exit code of the contract.
func runCall(ctx context.Context, env *term.Env, s *client.Session, verb string, params []call.Param, opts callOptions) error {
	reading, stop := whileRead(ctx, env.Stdout)
	defer stop()
	m := newMeter(env, s.Remaining)
	if opts.meter != nil {
		opts.meter.Store(m)
		defer opts.meter.Store(nil)
	}
	var showing sync.WaitGroup
	shown, done := context.WithCancel(ctx)
	showing.Go(func() { m.run(shown) })
	stdout, stderr := foreign(env.Stdout, opts.raw), foreign(env.Stderr, opts.raw)
	if env.JSON {
		stdout, stderr = term.JSONStream(env.Stdout, "stdout"), term.JSONStream(env.Stdout, "stderr")
	}
	r, err := s.Call(reading, verb, params,
		m.stream(stdout, term.IsTerminal(env.Stdout)), m.stream(stderr, term.IsTerminal(env.Stderr)))
	done()
	showing.Wait()
	if flushed := term.Flush(stdout, stderr); err == nil && flushed != nil {
		err = fmt.Errorf("%w: %w", client.ErrOutput, flushed)
	}
	if reading.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", client.ErrOutput, context.Cause(reading))
	}
	if err != nil {
		return callError(ctx, err)
	}
	ended := resultError(s.Passport(), verb, r)
	if env.JSON {
		if err := term.WriteJSON(env.Stdout, newResult(verb, r, term.CodeOf(ended))); err != nil {
			return callError(ctx, fmt.Errorf("%w: %w", client.ErrOutput, err))
		}
	}
	return ended
}

// foreign is where a stream of output goes: cleaned, unless its bytes are asked
// for and no terminal would act on them.
func foreign(w io.Writer, raw bool) io.Writer {
	if raw && !term.IsTerminal(w) {
		return w
	}
	return term.NewCleaner(w)
}

// callError is why nothing was sent, or nothing more is read.
func callError(ctx context.Context, err error) error {
	over, isOver := errors.AsType[*client.OverError](err)
	switch {
	case ctx.Err() != nil:
		return term.Errorf(term.Interrupted, "interrupted")
	case isOver:
		return overError(over)
	case errors.Is(err, client.ErrOutput):
		return term.Errorf(term.Interrupted, "nobody reads the output any more: the remote work was cancelled")
	case errors.Is(err, call.ErrMalformed):
		return term.Errorf(term.Usage, "%w", err)
	}
	return term.Errorf(term.Unreachable, "the call was not made: %w", err)
}

// result is the last line of call --json.
type result struct {
	Verb         string `json:"verb"`
	Call         string `json:"call"`
	Cause        string `json:"cause"`
	Status       int    `json:"status"`
	ExitCode     int    `json:"exit_code"` // of this program
	Reason       string `json:"reason,omitempty"`
	StdoutBytes  uint64 `json:"stdout_bytes"`
	StdoutSHA256 string `json:"stdout_sha256"`
	StderrBytes  uint64 `json:"stderr_bytes"`
	StderrSHA256 string `json:"stderr_sha256"`
	Complete     bool   `json:"complete"`
}

func newResult(verb string, r client.Result, code term.Code) result {
	return result{
		Verb: verb, Call: r.ID.String(), Cause: r.Cause.String(), Status: r.Status, ExitCode: int(code), Reason: r.Reason,
		StdoutBytes: r.Stdout.Bytes, StdoutSHA256: hex.EncodeToString(r.Stdout.SHA256[:]),
		StderrBytes: r.Stderr.Bytes, StderrSHA256: hex.EncodeToString(r.Stderr.SHA256[:]), Complete: r.Complete,
	}
}

// resultError is nil for a verb that ran, succeeded and was heard to its end.
func resultError(p *passport.Passport, verb string, r client.Result) error {
	if r.Cause == call.Exited && r.Status == 0 && r.Complete {
		return nil
	}
	reason := ""
	if r.Reason != "" {
		reason = ": " + r.Reason
	}
	switch r.Cause {
	case call.Exited:
		if !r.Complete {
			return term.Errorf(term.Unknown, "%s has ended, but not all of its output has come", verb)
		}
		return term.Errorf(term.Failed, "%s exited with status %d", verb, r.Status)
	case call.Failed, call.Timeout:
		return term.Errorf(term.Failed, "%s: %s%s", verb, r.Cause, reason)
	case call.Denied:
		if !shared(p, verb) {
			return term.Errorf(term.NotFound, "%s was not shared with you", verb).WithHint("run: " + program + " verbs")
		}
		return term.Errorf(term.Denied, "denied%s", reason).WithHint("run: " + program + " verbs")
	case call.Cancelled:
		return term.Errorf(term.Interrupted, "%s was cancelled", verb)
	case call.Limit:
		return term.Errorf(term.Limited, "limited%s", reason)
	case call.Stale, call.Unseen:
		return term.Errorf(term.Unreachable, "%s did not run%s", verb, reason).WithHint("try again")
	case call.Cut:
		return term.Errorf(term.Unknown, "the connection was lost: %s may have run, and its output is incomplete%s", verb, reason)
	}
	return overError(&client.OverError{Cause: r.Cause, Reason: r.Reason})
}

func shared(p *passport.Passport, verb string) bool {
	for _, v := range p.Grant.Verbs {
		if v.Name == verb {
			return true
		}
	}
	return false
}
