package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/term"
)

// prompt is the command without a name: connect, list, and call what is typed
// until Ctrl-D. Ctrl-C cancels the running call, and at the prompt empties the
// line.
func (o *options) prompt(ctx context.Context, env *term.Env, _ []string) error {
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
	sh := &shell{env: env, interrupts: interrupts, input: input}
	sh.open(stateDir(os.Getenv))
	if err := sh.connect(ctx, o, answers); err != nil {
		return err
	}
	defer o.leave(sh.session)
	if err := printVerbs(env, sh.session); err != nil {
		return err
	}
	fmt.Fprintln(env.Stderr, "\ntype a verb and its parameters, or help")
	return sh.converse(ctx)
}

// shell is the prompt of one session. Its jobs and its reader of lines are the
// only goroutines; converse ends them.
type shell struct {
	env        *term.Env
	session    *client.Session
	daemon     string // the name it was given; may be empty
	interrupts chan os.Signal
	input      *bufio.Reader

	console *console  // nil: lines come from a file or a pipe
	screen  io.Writer // where what is not output goes
	jobs    jobs
	meter   atomic.Pointer[meter] // of the call in the foreground
	warned  bool                  // that leaving ends the jobs
}

// connect reaches the session; an interrupt gives up.
func (sh *shell) connect(ctx context.Context, o *options, answers *bufio.Reader) error {
	ctx, stop := sh.untilInterrupt(ctx)
	defer stop()
	var err error
	sh.session, _, err = o.connectWith(ctx, sh.env, answers, func(p *passport.Passport) {
		o.told.add(changedNotice)
	}, sh.say)
	if err != nil {
		return err
	}
	sh.daemon = o.nameOf(sh.session)
	return nil
}

// open makes the terminal ready, where there is one, before anything can be told.
func (sh *shell) open(stateDir string) {
	verbs := func(line string, pos int) (string, int, []string) {
		return complete(sh.session.Passport().Grant.Verbs, line, pos)
	}
	sh.screen = sh.env.Stderr
	sh.console = newConsole(sh.env, sh.input, openHistory(filepath.Join(stateDir, "history")), verbs)
	if sh.console != nil {
		sh.console.prompt = sh.prompt
		sh.screen = aboveMeter{sh}
	}
}

// aboveMeter writes to the console, and first takes away the line of a call that
// runs in the foreground.
type aboveMeter struct{ sh *shell }

func (a aboveMeter) Write(p []byte) (int, error) {
	if m := a.sh.meter.Load(); m != nil {
		m.clear()
	}
	return a.sh.console.Write(p)
}

// say tells of what comes unasked.
func (sh *shell) say(text string) {
	fmt.Fprintln(sh.screen, term.Clean(text))
}

// prompt is the text before the line: whose daemon, how long the session still
// lasts, the way to the relay where it is not the best, and that no connection
// stands just now.
func (sh *shell) prompt() string {
	name := sh.daemon
	if name != "" {
		name += " "
	}
	switch way := sh.session.Way(); way {
	case "quic": // as it should be
	case "":
		name += "away "
	default:
		name += way + " "
	}
	return name + countdown(sh.session.Remaining()) + "> "
}

// countdown is a time left: minutes, and towards the end seconds.
func countdown(left time.Duration) string {
	if left > 2*time.Minute {
		return fmt.Sprintf("%dm", left/time.Minute)
	}
	return fmt.Sprintf("%ds", (left+time.Second-1)/time.Second)
}

// untilInterrupt is a context that the next interrupt ends.
func (sh *shell) untilInterrupt(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-sh.interrupts:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// typed is a line, or why there is none.
type typed struct {
	line string
	err  error
}

// converse reads lines until the input or the session ends.
func (sh *shell) converse(ctx context.Context) error {
	ctx, leave := context.WithCancel(ctx)
	defer sh.jobs.wait()
	defer leave()
	if sh.console != nil {
		defer sh.console.leave()
		go sh.console.countDown(ctx)
	}
	next, lines := make(chan struct{}), make(chan typed)
	go sh.read(ctx, next, lines)
	for {
		select {
		case next <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		line, err := sh.await(ctx, lines)
		if err != nil || line == nil {
			return err
		}
		if quit := sh.run(ctx, *line); quit && sh.mayLeave() {
			return nil
		}
	}
}

// read reads a line for each that is asked for. A read that waits for a person
// is left behind: the process ends soon after.
func (sh *shell) read(ctx context.Context, next <-chan struct{}, lines chan<- typed) {
	for {
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
		var t typed
		if sh.console != nil {
			t.line, t.err = sh.console.readLine()
		} else {
			fmt.Fprint(sh.env.Stderr, "> ")
			t.line, t.err = readLine(sh.input)
		}
		select {
		case lines <- t:
		case <-ctx.Done():
			return
		}
	}
}

// await is the next line; nil where there is none to come. The end of the
// session is an error.
func (sh *shell) await(ctx context.Context, lines <-chan typed) (*string, error) {
	for {
		select {
		case t := <-lines:
			switch {
			case t.err == nil:
				return &t.line, nil
			case !sh.mayLeave():
				return new(string), nil
			case sh.console == nil:
				fmt.Fprintln(sh.env.Stderr)
			}
			return nil, nil
		case <-sh.interrupts:
			if sh.console == nil {
				fmt.Fprintln(sh.env.Stderr)
			}
		case <-ctx.Done():
			return nil, nil
		case <-sh.session.Done():
			if sh.console != nil {
				sh.console.leave()
			} else {
				fmt.Fprintln(sh.env.Stderr)
			}
			return nil, sessionError(sh.session)
		}
	}
}

// mayLeave asks once more where leaving ends something. Lines from a pipe are
// over when they are over: what runs is waited for.
func (sh *shell) mayLeave() bool {
	n := sh.jobs.count()
	if n == 0 || sh.warned {
		return true
	}
	if sh.console == nil {
		sh.jobs.wait()
		return true
	}
	sh.warned = true
	sh.say(fmt.Sprintf("%d of your calls run; once more, and they are cancelled", n))
	return false
}

func sessionError(s *client.Session) error {
	if over, ok := errors.AsType[*client.OverError](s.Err()); ok {
		return overError(over)
	}
	return term.Errorf(term.Unreachable, "%w", s.Err()).WithHint("connect again with the same handle")
}

const promptHelp = `VERB [name=value ...]    make a call; a value with spaces goes in double quotes
VERB [name=value ...] &  make it while you go on
jobs                     list the calls that run
cancel N                 cancel one of them
verbs                    list what may be called
help VERB                say all about one verb
quit                     leave (or Ctrl-D)
Tab completes. Ctrl-C cancels the call in the foreground.`

// run does what one line says; errors are shown and the prompt goes on.
func (sh *shell) run(ctx context.Context, line string) (quit bool) {
	words, behind, err := splitCall(line)
	if err == nil && len(words) > 0 {
		quit, err = sh.command(ctx, words, behind)
	}
	if err != nil {
		sh.say(err.Error())
	}
	sh.warned = sh.warned && quit
	return quit
}

func (sh *shell) command(ctx context.Context, words []string, behind bool) (quit bool, err error) {
	switch word, rest := words[0], words[1:]; {
	case (word == "quit" || word == "exit") && len(rest) == 0:
		return true, nil
	case word == "help" && len(rest) == 0:
		fmt.Fprintln(sh.screen, promptHelp)
	case word == "help" && len(rest) == 1:
		return false, sh.help(rest[0])
	case word == "verbs" && len(rest) == 0:
		return false, printVerbs(sh.env, sh.session)
	case word == "jobs" && len(rest) == 0:
		sh.jobs.print(sh.screen)
	case word == "cancel" && len(rest) == 1:
		return false, sh.jobs.cancel(rest[0])
	case word == "kill" && len(rest) == 1:
		return false, sh.jobs.cancel(strings.TrimPrefix(rest[0], "%"))
	default:
		return false, sh.call(ctx, words, behind)
	}
	return false, nil
}

// call makes a call, in the foreground or behind the prompt.
func (sh *shell) call(ctx context.Context, words []string, behind bool) error {
	params, err := readParams(words[1:])
	if err != nil {
		return err
	}
	params = client.Fill(client.Alternatives(sh.session.Passport(), words[0]), params)
	if behind {
		return sh.jobs.start(ctx, sh.screen, strings.Join(words, " "), func(ctx context.Context, j *job) error {
			return sh.behind(ctx, j, words[0], params)
		})
	}
	ctx, stop := sh.untilInterrupt(ctx)
	defer stop()
	return runCall(ctx, sh.env, sh.session, words[0], params, callOptions{meter: &sh.meter})
}

// behind runs a call whose output goes above the line that is being typed, or,
// where that is a file or a pipe, to standard output.
func (sh *shell) behind(ctx context.Context, j *job, verb string, params []call.Param) error {
	to := sh.screen
	if sh.console == nil || !term.IsTerminal(sh.env.Stdout) {
		to = sh.env.Stdout
	}
	stdout, stderr := &numbered{to: to, job: j}, &numbered{to: sh.screen, job: j}
	r, err := sh.session.Do(ctx, client.Asked{Verb: verb, Params: params, Stdout: stdout, Stderr: stderr})
	stdout.flush()
	stderr.flush()
	if err != nil {
		return callError(ctx, err)
	}
	return resultError(sh.session.Passport(), verb, r)
}
