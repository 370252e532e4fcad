package term

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// manCommand prints the manual page, made from what --help is made from.
func manCommand(root *Command) *Command {
	return &Command{
		Name: "__man", Hidden: true, Short: "print the manual page, as man -l reads it",
		Run: func(_ context.Context, env *Env, _ []string) error {
			_, err := io.WriteString(env.Stdout, manPage(env, root))
			return err
		},
	}
}

// manPage is the page in man(7), of all commands.
func manPage(env *Env, root *Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" %s \"OpenScope remote ops\"\n", roff(strings.ToUpper(env.Program)), roff(env.Program))
	fmt.Fprintf(&b, ".SH NAME\n%s", short(roff(env.Program)+" \\- "+roff(root.Short)))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n", roff(env.Program))
	b.WriteString(".RI [ FLAGS ]\n.RI [ ARGUMENTS ]\n")
	if root.Long != "" {
		b.WriteString(".SH DESCRIPTION\n" + manText(root.Long))
	}
	if flags := manFlags(root); flags != "" && root.Run != nil {
		b.WriteString(".SH OPTIONS\n" + flags)
	}
	b.WriteString(".SH COMMANDS\n")
	for _, sub := range root.Subcommands {
		manCommandText(&b, sub, []string{env.Program})
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s", c.code, short(roff(c.means)))
	}
	return b.String()
}

// exitCodes are the contract's, in words.
var exitCodes = []struct {
	code  Code
	means string
}{
	{OK, "done"},
	{Internal, "an internal fault, which is a bug"},
	{Usage, "a flag, a value or a handle is malformed"},
	{Denied, "denied. It is final: do not work around it"},
	{NotFound, "there is no such session, alias, verb or entry"},
	{Failed, "the verb ran and failed, or its time was up"},
	{Config, "a file is malformed, or not protected as it must be; audit verify found a bad entry"},
	{Unreachable, "the daemon, the relay or the other end cannot be reached; the call never ran"},
	{Limited, "a limit is reached"},
	{Over, "the session is over"},
	{Unknown, "the connection was lost after the call may have started"},
	{Interrupted, "interrupted: the remote work was cancelled"},
}

func manCommandText(b *strings.Builder, c *Command, path []string) {
	if c.Hidden {
		return
	}
	path = append(path[:len(path):len(path)], c.Name)
	if len(c.Subcommands) == 0 || c.Run != nil {
		fmt.Fprintf(b, ".SS %s\n", roff(strings.TrimSpace(strings.Join(path[1:], " ")+" "+c.Args)))
		b.WriteString(short(roff(strings.ToUpper(c.Short[:1])+c.Short[1:]) + "."))
		if c.Long != "" {
			b.WriteString(".PP\n" + manText(c.Long))
		}
		b.WriteString(manFlags(c))
	}
	for _, sub := range c.Subcommands {
		manCommandText(b, sub, path)
	}
}

// manFlags are the command's flags, as --help has them.
func manFlags(c *Command) string {
	if c.Flags == nil {
		return ""
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	c.Flags(fs)
	var b strings.Builder
	fs.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, ".TP\n.B %s", roff(flagName(f)))
		if kind != "" {
			fmt.Fprintf(&b, " %s", roff(kind))
		}
		b.WriteString("\n" + short(roff(usage)))
	})
	return b.String()
}

// manText is a text of several lines; one that is set in columns stays so.
func manText(text string) string {
	var b strings.Builder
	filled := true
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		line = strings.TrimRight(line, "\n")
		if columns := strings.Contains(line, "  "); columns == filled {
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[columns])
			filled = !columns
		}
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		if filled {
			b.WriteString(short(roff(line)))
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	if !filled {
		b.WriteString(".fi\n")
	}
	return b.String()
}

// short is a line of text in lines of at most 80 bytes, as the format's
// reviewers like them.
func short(text string) string {
	var b strings.Builder
	length := 0
	for word := range strings.FieldsSeq(text) {
		if length > 0 && length+1+len(word) > 78 {
			b.WriteString("\n")
			length = 0
		}
		if length > 0 {
			b.WriteString(" ")
			length++
		} else if word[0] == '.' { // a word now begins the line
			word = `\&` + word
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String() + "\n"
}

// roff is a text that means nothing to roff but itself.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "'", `\(aq`, `"`, `\(dq`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// withOwn is the root with the commands that every program has.
func withOwn(root *Command) *Command {
	own := *root
	own.Subcommands = append(root.Subcommands[:len(root.Subcommands):len(root.Subcommands)], completionCommand())
	// The hidden ones see the tree without themselves.
	seen := own
	own.Subcommands = append(own.Subcommands[:len(own.Subcommands):len(own.Subcommands)], completeCommand(&seen), manCommand(&seen))
	return &own
}
