package main

import (
	"context"
	"errors"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/term"
)

// call is the call command.
func (o *options) call(ctx context.Context, env *term.Env, args []string) error {
	params, err := readParams(args[1:])
	if err != nil {
		return err
	}
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer s.Close()
	params = client.Fill(client.Alternatives(s.Passport(), args[0]), params)
	return runCall(ctx, env, s, args[0], params)
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
func runCall(ctx context.Context, env *term.Env, s *client.Session, verb string, params []call.Param) error {
	stdout, stderr := term.Foreign(env.Stdout), term.Foreign(env.Stderr)
	if env.JSON {
		stdout, stderr = term.JSONStream(env.Stdout, "stdout"), term.JSONStream(env.Stdout, "stderr")
	}
	r, err := s.Call(ctx, verb, params, stdout, stderr)
	term.Flush(stdout, stderr)
	if err != nil {
		return callError(ctx, err)
	}
	if env.JSON {
		if err := term.WriteJSON(env.Stdout, newResult(r)); err != nil {
			return err
		}
	}
	return resultError(s.Passport(), verb, r)
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
	Call        string `json:"call"`
	Cause       string `json:"cause"`
	Status      int    `json:"status"`
	Reason      string `json:"reason,omitempty"`
	StdoutBytes uint64 `json:"stdout_bytes"`
	StderrBytes uint64 `json:"stderr_bytes"`
	Complete    bool   `json:"complete"`
}

func newResult(r client.Result) result {
	return result{
		Call: r.ID.String(), Cause: r.Cause.String(), Status: r.Status, Reason: r.Reason,
		StdoutBytes: r.Stdout.Bytes, StderrBytes: r.Stderr.Bytes, Complete: r.Complete,
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
		return term.Errorf(term.Unknown, "the connection was lost: %s may have run, and its output is incomplete", verb)
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
