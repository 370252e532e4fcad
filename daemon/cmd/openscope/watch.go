package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

func shareWatchCommand(p *paths) *term.Command {
	readOnly := false
	return &term.Command{
		Name: "watch", Args: "ID", MinArgs: 1, MaxArgs: 1,
		Short:    "see calls and their output as they come; answer for calls, or revoke, by one key",
		Complete: p.completes(p.sessions),
		Long: `Without a terminal it prints a line for everything that happens, and ends with the
session. With --json each event is an object on a line of its own.`,
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&readOnly, "read-only", false, "no key answers or revokes anything")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			if !env.JSON && isScreen(env) {
				return p.watchScreen(ctx, env, args[0], readOnly)
			}
			return p.watchLines(ctx, env, args[0], readOnly)
		},
	}
}

// isScreen reports whether there is a terminal that can be drawn on, and keys.
func isScreen(env *term.Env) bool {
	return term.IsTerminal(env.Stdin) && term.IsTerminal(env.Stdout) && env.Getenv("TERM") != "dumb"
}

// A daemon that went away is asked again, for as long as a restart takes.
const (
	retryEvery = 500 * time.Millisecond
	retryFor   = 15 * time.Second
)

// follow hands over the session's events until it is over. A lost daemon is
// waited for; lost is told whether it is.
func (p *paths) follow(ctx context.Context, id string, emit func(control.Event) error, lost func(bool)) error {
	begun := false
	var since time.Time
	for {
		err := p.daemon().Watch(ctx, control.WatchRequest{ID: id}, func(e control.Event) error {
			if !since.IsZero() {
				since = time.Time{}
				lost(false)
			}
			begun = true
			return emit(e)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case begun && term.CodeOf(err) == term.NotFound:
			return term.Errorf(term.Over, "session %s is over: the daemon was started anew", id).
				WithHint("run: openscope audit show " + id)
		case !begun || term.CodeOf(err) != term.Unreachable:
			return err
		}
		if since.IsZero() {
			since = time.Now()
			lost(true)
		}
		if time.Since(since) > retryFor {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
	}
}

// watchLines is for where there is no screen.
func (p *paths) watchLines(ctx context.Context, env *term.Env, id string, readOnly bool) error {
	s := newWatched(readOnly)
	print := func(rows []row) error {
		for _, r := range rows {
			at := "        "
			if !r.at.IsZero() {
				at = clock(r.at)
			}
			if _, err := fmt.Fprintln(env.Stdout, at, r.text); err != nil {
				return errGone
			}
		}
		return nil
	}
	told := false
	err := p.follow(ctx, id, func(e control.Event) error {
		if env.JSON {
			if term.WriteJSON(env.Stdout, newWatchedEvent(e)) != nil {
				return errGone
			}
			return nil
		}
		rows := s.apply(e, time.Now())
		if e.Kind == control.EventSession && !told {
			told = true
			rows = []row{{at: e.Time, text: watchingText(s)}}
		}
		if e.Kind == control.EventWaiting && !readOnly {
			rows = append(rows, row{text: "   openscope share approve " + e.Waiting.Call + ", or deny " + e.Waiting.Call})
		}
		return print(rows)
	}, func(gone bool) {
		if gone {
			fmt.Fprintln(env.Stderr, "the daemon does not answer; trying again")
		}
	})
	if errors.Is(err, errGone) {
		return nil // nobody reads any more
	}
	if err == nil && s.over && !env.JSON {
		printWatched(env.Stdout, s)
	}
	return err
}

var errGone = errors.New("nobody reads")

func watchingText(s *watched) string {
	return fmt.Sprintf("watching %s, %s as %s -> %s, %s, %s left", s.share.ID, s.share.Issuer, s.share.Agent,
		s.share.Recipient, s.share.State, durationClock(s.left(s.at)))
}

// printWatched is what remains when a watch is over.
func printWatched(w io.Writer, s *watched) {
	how := outcomes(s.share)
	if how == "" {
		how = "none was made"
	}
	fmt.Fprintf(w, "%s: %s; calls: %s\nrecord       openscope audit show %s\n",
		s.share.ID, term.OneLine(stateText(s.share)), term.OneLine(how), s.share.ID)
}

func stateText(s control.Share) string {
	if s.State == control.StateEnded {
		return "ended (" + s.Cause + ")"
	}
	return s.State
}

// watchedEvent is an event as --json has it: output as call prints it.
type watchedEvent struct {
	control.Event
	Data   any    `json:"data,omitempty"` // hides the event's own
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"`
}

func newWatchedEvent(e control.Event) watchedEvent {
	shown := watchedEvent{Event: e}
	if len(e.Data) == 0 {
		return shown
	}
	if utf8.Valid(e.Data) {
		shown.Text = string(e.Data)
	} else {
		shown.Base64 = base64.StdEncoding.EncodeToString(e.Data)
	}
	return shown
}
