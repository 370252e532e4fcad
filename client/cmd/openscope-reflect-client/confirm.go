package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"openscope/client"
	"openscope/wire/handle"
	"openscope/wire/term"
)

// confirm lets the handle's daemon be known or be confirmed by a person, before
// any packet is sent. It never shows the words it expects. The answers of a
// person come from the reader.
func (o *options) confirm(ctx context.Context, env *term.Env, h handle.Handle, answers *bufio.Reader) error {
	known, err := client.OpenKnownDaemons(o.knownDaemons)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	// Whoever says which daemon they mean means it, also where the handle's is one
	// of those they know.
	if o.fingerprint != "" && !handle.MatchFingerprint(h.Fingerprint, o.fingerprint) {
		return errMismatch()
	}
	if o.daemon != "" {
		switch ok, err := known.Check(o.daemon, h.Fingerprint); {
		case err != nil:
			return term.Errorf(term.Denied, "%s: %w", o.daemon, err).
				WithHint("ask the issuer by another way; if their daemon really is new, take the old line out of " + o.knownDaemons)
		case ok:
			return nil
		}
	} else if _, ok := known.Name(h.Fingerprint); ok {
		return nil
	}
	if o.fingerprint != "" {
		return o.rememberGiven(known, h)
	}
	if answers == nil {
		return term.Errorf(term.Denied, "the daemon's fingerprint is not confirmed, and there is no terminal to ask on").
			WithHint(`get the words from the issuer and run: ` + program + ` --fingerprint "WORDS" ...`)
	}
	return o.ask(ctx, env, known, h, answers)
}

// rememberGiven remembers a daemon that --fingerprint has confirmed, when it was
// given a name.
func (o *options) rememberGiven(known *client.KnownDaemons, h handle.Handle) error {
	if o.daemon == "" {
		return nil
	}
	if err := known.Remember(o.daemon, h.Fingerprint); err != nil {
		return term.Errorf(term.Usage, "%w", err)
	}
	return nil
}

func errMismatch() error {
	return term.Errorf(term.Denied, "the fingerprint is not that of the handle's daemon: nothing was sent").
		WithHint("compare with the issuer by another way than the handle came; ask for a new handle")
}

// ask has the person type the words, and a name to remember the daemon by.
func (o *options) ask(ctx context.Context, env *term.Env, known *client.KnownDaemons, h handle.Handle, answers *bufio.Reader) error {
	words, err := answer(ctx, env, answers, "The daemon's fingerprint, as the issuer told you (8 words): ")
	if err != nil {
		return unanswered(ctx, "the daemon's fingerprint was not confirmed")
	}
	if !handle.MatchFingerprint(h.Fingerprint, words) {
		return errMismatch()
	}
	name := o.daemon
	for name == "" {
		if name, err = answer(ctx, env, answers, "A name to remember this daemon by: "); err != nil {
			return unanswered(ctx, "the daemon was given no name")
		}
		if err := client.CheckDaemonName(name); err != nil {
			fmt.Fprintln(env.Stderr, err)
			name = ""
		}
	}
	switch err := known.Remember(name, h.Fingerprint); {
	case errors.Is(err, client.ErrChanged):
		return term.Errorf(term.Denied, "%s: %w", name, err).
			WithHint("choose another name, or take the old line out of " + o.knownDaemons)
	case err != nil:
		return term.Errorf(term.Config, "%w", err)
	}
	return nil
}

// answer asks a person. An interrupt is an answer too: the read that waits for
// another is left behind, since the process ends soon after.
func answer(ctx context.Context, env *term.Env, answers *bufio.Reader, question string) (string, error) {
	fmt.Fprint(env.Stderr, question)
	come := make(chan typed, 1)
	go func() {
		line, err := readLine(answers)
		come <- typed{line, err}
	}()
	select {
	case t := <-come:
		return t.line, t.err
	case <-ctx.Done():
		fmt.Fprintln(env.Stderr)
		return "", context.Cause(ctx)
	}
}

func unanswered(ctx context.Context, what string) error {
	if ctx.Err() != nil {
		return term.Errorf(term.Interrupted, "interrupted")
	}
	return term.Errorf(term.Denied, "%s", what)
}

// nameOf is the name that the session's daemon was given; empty where it was
// given none.
func (o *options) nameOf(s *client.Session) string {
	known, err := client.OpenKnownDaemons(o.knownDaemons)
	if err != nil {
		return "" // it is for the prompt only
	}
	name, _ := known.Name(s.Passport().Daemon)
	return name
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	line = strings.TrimSpace(line)
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", err
	}
	return line, nil
}
