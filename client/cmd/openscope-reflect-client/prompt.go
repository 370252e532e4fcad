package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"openscope/client"
	"openscope/wire/term"
)

// prompt is the command without a name: connect, list, and call what is typed
// until Ctrl-D. Ctrl-C cancels the running call, and at the prompt does nothing.
func (o *options) prompt(ctx context.Context, env *term.Env, words []string) error {
	if o.passport == "-" {
		return term.Errorf(term.Usage, "the prompt reads standard input, so the handle cannot come from there").
			WithHint("give the handle as @file")
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)

	input := bufio.NewReader(env.Stdin)
	var answers *bufio.Reader
	if term.IsTerminal(env.Stdin) {
		answers = input
	}
	s, err := o.connectInterruptibly(ctx, env, answers, interrupts)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := printVerbs(env, s); err != nil {
		return err
	}
	fmt.Fprintln(env.Stderr, "\ntype a verb and its parameters, verbs, help or quit")
	return converse(ctx, env, s, input, interrupts)
}

func (o *options) connectInterruptibly(ctx context.Context, env *term.Env, answers *bufio.Reader, interrupts <-chan os.Signal) (*client.Session, error) {
	ctx, stop := untilInterrupt(ctx, interrupts)
	defer stop()
	return o.connectAsking(ctx, env, answers)
}

// untilInterrupt is a context that the next interrupt ends.
func untilInterrupt(ctx context.Context, interrupts <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-interrupts:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// converse reads lines until the input or the session ends.
func converse(ctx context.Context, env *term.Env, s *client.Session, input *bufio.Reader, interrupts chan os.Signal) error {
	lines := make(chan string)
	left := make(chan struct{})
	defer close(left)
	go func() {
		defer close(lines)
		for {
			line, err := readLine(input)
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-left:
				return
			}
		}
	}()
	for {
		fmt.Fprint(env.Stderr, "> ")
		select {
		case line, more := <-lines:
			if !more {
				fmt.Fprintln(env.Stderr)
				return nil
			}
			if quit := runLine(ctx, env, s, line, interrupts); quit {
				return nil
			}
		case <-interrupts:
			fmt.Fprintln(env.Stderr)
		case <-ctx.Done():
			return nil
		case <-s.Done():
			fmt.Fprintln(env.Stderr)
			return sessionError(s)
		}
	}
}

func sessionError(s *client.Session) error {
	if over, ok := errors.AsType[*client.OverError](s.Err()); ok {
		return overError(over)
	}
	return term.Errorf(term.Unreachable, "%w", s.Err()).WithHint("connect again with the same handle")
}

// runLine does what one line says; errors are shown and the prompt goes on.
func runLine(ctx context.Context, env *term.Env, s *client.Session, line string, interrupts <-chan os.Signal) (quit bool) {
	words, err := splitLine(line)
	if err == nil && len(words) > 0 {
		switch words[0] {
		case "quit", "exit":
			return true
		case "help":
			fmt.Fprintln(env.Stderr, "VERB [name=value ...]  make a call; a value with spaces goes in double quotes\nverbs                  list what may be called\nquit                   leave (or Ctrl-D)")
		case "verbs":
			err = printVerbs(env, s)
		default:
			err = callLine(ctx, env, s, words, interrupts)
		}
	}
	if err != nil {
		fmt.Fprintln(env.Stderr, term.Clean(err.Error()))
	}
	return false
}

func callLine(ctx context.Context, env *term.Env, s *client.Session, words []string, interrupts <-chan os.Signal) error {
	params, err := readParams(words[1:])
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(ctx, interrupts)
	defer stop()
	return runCall(ctx, env, s, words[0], params)
}

// splitLine cuts a line at spaces; double quotes keep them, and a backslash
// takes what follows it as it is.
func splitLine(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun, quoted, escaped := false, false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			begun, escaped = true, true
		case r == '"':
			begun, quoted = true, !quoted
		case (r == ' ' || r == '\t') && !quoted:
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quoted || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
