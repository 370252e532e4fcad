package term

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/peterbourgon/ff/v3"
)

// Env is the world of one command: its streams, its environment, and whether it
// speaks JSON.
type Env struct {
	Program        string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	JSON           bool
}

// Command is one command, with its subcommands or with something to run.
type Command struct {
	Name string
	// Args is what follows the flags in the usage line, like "ID [--reason TEXT]".
	Args        string
	Short, Long string
	// Flags defines the command's flags.
	Flags func(*flag.FlagSet)
	// MinArgs and MaxArgs bound the positional words; MaxArgs -1 is no bound.
	MinArgs, MaxArgs int
	Run              func(ctx context.Context, env *Env, args []string) error
	Subcommands      []*Command
	// Hidden commands are for scripts: they are listed nowhere.
	Hidden bool
	// Complete offers what could stand at some place of the command line; see
	// [Completing]. It asks whoever knows, and gives up when they do not answer.
	Complete func(ctx context.Context, at Completing) []Candidate
	// Interactive commands handle interrupts themselves.
	Interactive bool
	// Options let a command read its flags from a file or the environment too.
	Options []ff.Option
}

// Main runs a command line and returns the exit code. Errors are one line on
// stderr, and one more for the hint.
func Main(ctx context.Context, env *Env, root *Command, argv []string) int {
	err := withOwn(root).run(ctx, env, []string{env.Program}, argv)
	if err == nil {
		return int(OK)
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Code: CodeOf(err), Message: err.Error()}
	}
	if e.Message != "" {
		fmt.Fprintf(env.Stderr, "%s: %s\n", env.Program, oneLine(err.Error()))
	}
	if e.Hint != "" {
		fmt.Fprintf(env.Stderr, "hint: %s\n", oneLine(e.Hint))
	}
	return int(e.Code)
}

// oneLine keeps an error on its line, and secrets out of it, whatever it quotes.
func oneLine(s string) string {
	return strings.ReplaceAll(Clean(Redact(strings.TrimSpace(s))), "\n", "; ")
}

func (c *Command) run(ctx context.Context, env *Env, path, argv []string) error {
	fs := flag.NewFlagSet(strings.Join(path, " "), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	jsonDefault := env.Getenv("OPENSCOPE_JSON")
	fs.BoolVar(&env.JSON, "json", env.JSON || jsonDefault != "" && jsonDefault != "0", "print JSON")
	if c.Flags != nil {
		c.Flags(fs)
	}
	words, sub, rest, err := c.parse(fs, argv)
	if errors.Is(err, flag.ErrHelp) {
		return env.printed(func(w io.Writer) { c.help(w, path, fs) })
	}
	if err != nil {
		return Errorf(Usage, "%w", err).WithHint("run: " + strings.Join(path, " ") + " --help")
	}
	if sub != nil {
		return sub.run(ctx, env, append(path, sub.Name), rest)
	}
	if err := ff.Parse(fs, nil, c.Options...); err != nil {
		// The words of the command line were parsed above: this is the file's.
		return Errorf(Config, "reading the configuration file: %w", err)
	}
	if err := c.checkWords(path, words); err != nil {
		return err
	}
	if !c.Interactive {
		var stop context.CancelFunc
		ctx, stop = interruptible(ctx)
		defer stop()
	}
	return c.Run(ctx, env, words)
}

func (c *Command) checkWords(path, words []string) error {
	hint := "run: " + strings.Join(path, " ") + " --help"
	switch {
	case c.Run == nil && len(words) > 0:
		return Errorf(Usage, "there is no command %q", words[0]).WithHint(hint)
	case c.Run == nil:
		return Errorf(Usage, "a command is missing after %s", strings.Join(path, " ")).WithHint(hint)
	case len(words) < c.MinArgs:
		return Errorf(Usage, "%s needs %s", strings.Join(path[1:], " "), c.Args).WithHint(hint)
	case c.MaxArgs >= 0 && len(words) > c.MaxArgs:
		return Errorf(Usage, "unexpected %q", words[c.MaxArgs]).WithHint(hint)
	}
	return nil
}

// parse sets flags wherever they stand, up to a subcommand's name or to --.
func (c *Command) parse(fs *flag.FlagSet, argv []string) (words []string, sub *Command, rest []string, err error) {
	set := make(map[string]bool)
	for len(argv) > 0 {
		arg := argv[0]
		argv = argv[1:]
		switch {
		case arg == "--":
			return append(words, argv...), nil, nil, nil
		case len(arg) > 1 && arg[0] == '-':
			if argv, err = setFlag(fs, set, arg, argv); err != nil {
				return nil, nil, nil, err
			}
		case len(words) == 0 && c.sub(arg) != nil:
			return nil, c.sub(arg), argv, nil
		default:
			words = append(words, arg)
		}
	}
	return words, nil, nil, nil
}

func (c *Command) sub(name string) *Command {
	for _, s := range c.Subcommands {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// setFlag sets one flag, taking its value from behind = or from the next word.
func setFlag(fs *flag.FlagSet, set map[string]bool, arg string, rest []string) ([]string, error) {
	name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if name == "h" || name == "help" {
		return nil, flag.ErrHelp
	}
	f := fs.Lookup(name)
	if f == nil {
		return nil, fmt.Errorf("unknown flag --%s", name)
	}
	_, repeatable := f.Value.(*List)
	if set[name] && !repeatable {
		return nil, fmt.Errorf("the flag --%s is given twice", name)
	}
	set[name] = true
	boolean, ok := f.Value.(interface{ IsBoolFlag() bool })
	switch {
	case inline:
	case ok && boolean.IsBoolFlag():
		value = "true"
	case len(rest) == 0:
		return nil, fmt.Errorf("the flag --%s: %w", name, errNoValue)
	default:
		value, rest = rest[0], rest[1:]
	}
	if err := fs.Set(name, value); err != nil {
		return nil, fmt.Errorf("the flag --%s: %w", name, err)
	}
	return rest, nil
}

func (c *Command) help(w io.Writer, path []string, fs *flag.FlagSet) {
	fmt.Fprintf(w, "usage: %s", strings.Join(path, " "))
	if len(c.Subcommands) > 0 {
		fmt.Fprint(w, " COMMAND")
	}
	if c.Args != "" {
		fmt.Fprintf(w, " %s", c.Args)
	}
	fmt.Fprintf(w, "\n\n%s\n", c.Short)
	if c.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if len(c.Subcommands) > 0 {
		fmt.Fprintln(w, "\ncommands:")
		for _, s := range c.Subcommands {
			if !s.Hidden {
				fmt.Fprintf(w, "  %-12s %s\n", s.Name, s.Short)
			}
		}
	}
	fmt.Fprintln(w, "\nflags:")
	fs.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  --%-20s %s\n", strings.TrimSpace(f.Name+" "+kind), usage)
	})
}

// Print writes one JSON object, or what human prints.
func (e *Env) Print(v any, human func(io.Writer)) error {
	if e.JSON {
		return WriteJSON(e.Stdout, v)
	}
	return e.printed(human)
}

// printed lets human print without a look at each write; that one of them failed,
// on a full disk say, is an error all the same.
func (e *Env) printed(human func(io.Writer)) error {
	out := &firstError{to: e.Stdout}
	human(out)
	if out.err != nil {
		return fmt.Errorf("printing: %w", out.err)
	}
	return nil
}

// firstError is a writer that writes nothing more after an error, and keeps it.
type firstError struct {
	to  io.Writer
	err error
}

func (w *firstError) Write(p []byte) (n int, err error) {
	if w.err == nil {
		n, w.err = w.to.Write(p)
	}
	return n, w.err
}
