package main

import (
	"bytes"
	"context"
	"flag"
	"strings"
	"testing"

	"openscope/wire/term"
)

// FuzzCommandLine is F9: no command line, and no environment, does anything but
// run as it says, or say in a line and a hint why not; a handle is never shown.
func FuzzCommandLine(f *testing.F) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(options).define(fs)
	fs.VisitAll(func(one *flag.Flag) {
		f.Add("--"+one.Name+"\n1\nverbs", "")
		f.Add("call\na.b\n--"+one.Name+"=1\nx=1", "osh1s"+strings.Repeat("0", 64))
	})
	for _, line := range []string{
		"narrow --verb a.b:x=1 --to osk1 --ttl 5m", "request a.b x=1 --reason why", "inspect osh1sabc", "keygen -o x", "mcp", "call --raw a.b",
		"--passport osh1sabc --passport osh1sabd", "", "--help", "-", "--", "--=x", "call -- --raw", "completion zsh", "__man",
	} {
		f.Add(strings.ReplaceAll(line, " ", "\n"), "")
	}
	f.Fuzz(func(t *testing.T, line, handle string) {
		words := strings.Split(line, "\n")
		if len(words) > 64 || len(line)+len(handle) > 4096 {
			return
		}
		o := fromEnvironment(func(name string) string {
			return map[string]string{"OPENSCOPE_PASSPORT": handle, "HOME": "/nowhere"}[name]
		})
		root := &term.Command{Name: program, Short: "x", Flags: o.define, Subcommands: []*term.Command{
			{Name: "verbs", Short: "x", Flags: o.define}, callCommand(o), narrowCommand(o), requestCommand(o), mcpCommand(o),
			{Name: "inspect", Short: "x", Args: "HANDLE", Flags: o.define, MaxArgs: 1}, keygenCommand(o), {Name: "key", Short: "x", Flags: o.define},
		}}
		nothing := func(context.Context, *term.Env, []string) error { return nil }
		root.Run = nothing
		for _, c := range root.Subcommands {
			c.Run = nothing
		}
		var out, errs bytes.Buffer
		env := &term.Env{Program: program, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
		code := term.Main(t.Context(), env, root, words)
		lines := strings.Split(strings.TrimSuffix(errs.String(), "\n"), "\n")
		switch {
		case code == int(term.OK):
		case code != int(term.Usage):
			t.Errorf("%q: exit %d: %s", words, code, errs.String())
		case len(lines) > 2 || !strings.HasPrefix(lines[0], program+": ") || strings.ContainsAny(errs.String(), "\x1b\r\x00"):
			t.Errorf("%q is refused with %q", words, errs.String())
		case strings.Contains(errs.String(), "osh1s"+strings.Repeat("0", 64)):
			t.Errorf("%q shows a handle: %q", words, errs.String())
		}
	})
}
