package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openscope/wire/term"
)

// FuzzServe is F9 for what has flags, a file and an environment: whatever they
// say, serve starts with limits that a relay can have, or says in one line and a
// hint why not.
func FuzzServe(f *testing.F) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(serveFlags).define(fs)
	fs.VisitAll(func(one *flag.Flag) {
		f.Add("--"+one.Name+"\n1", one.Name+" 1\n", "127.0.0.1:0")
		f.Add("--"+one.Name+"=x", one.Name+"\n"+one.Name+" 2\n", "")
	})
	f.Add("--self-signed\n--drain\n-5s", "# a remark\n\nmax-connections -1\n", "x\x1b[31m")
	f.Add("--config\n/nowhere", "config /nowhere\n", "")
	path := filepath.Join(f.TempDir(), "relay.conf")
	f.Fuzz(func(t *testing.T, line, file, listen string) {
		if len(line)+len(file)+len(listen) > 8192 {
			return
		}
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := &serveFlags{listen: listen}
		ran := false
		serve := serveCommand(listen)
		serve.Flags, serve.Run = flags.define, func(context.Context, *term.Env, []string) error {
			ran = true
			if err := flags.check(); err != nil {
				return term.Errorf(term.Usage, "%w", err)
			}
			return nil
		}
		var out, errs bytes.Buffer
		env := &term.Env{Program: program, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
		words := append(strings.Split(line, "\n"), "--config", path)
		code := term.Main(t.Context(), env, &term.Command{Name: program, Subcommands: []*term.Command{serve}}, append([]string{"serve"}, words...))
		lines := strings.Split(strings.TrimSuffix(errs.String(), "\n"), "\n")
		switch {
		case code == int(term.OK):
			l := flags.limits
			if ran && (min(l.Connections, l.Handshaking, l.Token.Sessions) < 0 || flags.drain < 0 || l.Token.Bytes < 0) {
				t.Errorf("%q with %q has it serve with %+v", words, file, l)
			}
		case code != int(term.Usage) && code != int(term.Config): // a flag, or the file
			t.Errorf("%q: exit %d: %s", words, code, errs.String())
		case len(lines) > 2 || !strings.HasPrefix(lines[0], program+": ") || strings.ContainsAny(errs.String(), "\x1b\r\x00"):
			t.Errorf("%q is refused with %q", words, errs.String())
		}
	})
}
