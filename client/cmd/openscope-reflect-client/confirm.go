package main

import (
	"bufio"
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
func (o *options) confirm(env *term.Env, h handle.Handle, answers *bufio.Reader) error {
	known, err := client.OpenKnownDaemons(o.knownDaemons)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
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
		return o.confirmGiven(known, h)
	}
	if answers == nil {
		return term.Errorf(term.Denied, "the daemon's fingerprint is not confirmed, and there is no terminal to ask on").
			WithHint(`get the words from the issuer and run: ` + program + ` --fingerprint "WORDS" ...`)
	}
	return o.ask(env, known, h, answers)
}

// confirmGiven compares what --fingerprint says, and remembers the daemon when
// it was given a name.
func (o *options) confirmGiven(known *client.KnownDaemons, h handle.Handle) error {
	if !handle.MatchFingerprint(h.Fingerprint, o.fingerprint) {
		return errMismatch()
	}
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
func (o *options) ask(env *term.Env, known *client.KnownDaemons, h handle.Handle, answers *bufio.Reader) error {
	fmt.Fprint(env.Stderr, "The daemon's fingerprint, as the issuer told you (8 words): ")
	words, err := readLine(answers)
	if err != nil {
		return term.Errorf(term.Denied, "the daemon's fingerprint was not confirmed")
	}
	if !handle.MatchFingerprint(h.Fingerprint, words) {
		return errMismatch()
	}
	name := o.daemon
	for name == "" {
		fmt.Fprint(env.Stderr, "A name to remember this daemon by: ")
		if name, err = readLine(answers); err != nil {
			return term.Errorf(term.Denied, "the daemon was given no name")
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
