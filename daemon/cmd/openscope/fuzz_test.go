package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// tried is a command line without its deeds: every command but share open only
// notes that it would have run, and share open what it would have asked for.
type tried struct {
	root *term.Command
	ran  bool
	open *control.OpenRequest
}

func newTried(getenv func(string) string) *tried {
	t := &tried{root: root(getenv)}
	t.disarm(t.root)
	return t
}

func (t *tried) disarm(c *term.Command) {
	if c.Run != nil {
		c.Run = func(context.Context, *term.Env, []string) error { t.ran = true; return nil }
	}
	for _, sub := range c.Subcommands {
		if c.Name == "share" && sub.Name == "open" {
			f := new(openFlags)
			sub.Flags, sub.Run = f.define, func(context.Context, *term.Env, []string) error {
				t.ran = true
				req, err := f.request()
				if err == nil {
					t.open = &req
				}
				return err
			}
			continue
		}
		t.disarm(sub)
	}
}

// commandLine runs one; its words and its environment's are lines.
func commandLine(t *testing.T, words []string, environ string) (tried *tried, code int, stdout, stderr string) {
	t.Helper()
	getenv := func(name string) string {
		for line := range strings.Lines(environ) {
			if value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), name+"="); ok {
				return value
			}
		}
		return ""
	}
	tried = newTried(getenv)
	var out, errs bytes.Buffer
	env := &term.Env{Program: program, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: getenv}
	code = term.Main(t.Context(), env, tried.root, words)
	return tried, code, out.String(), errs.String()
}

// F9: no command line, and no environment, does anything but run as it says, or
// say in a line and a hint why not.
func FuzzCommandLine(f *testing.F) {
	for _, line := range append(everyFlag(root(os.Getenv), nil),
		"share open --agent you --verb test.echo:text=a|b --to vendor-b --ttl 5m --max-calls 3 --max-output 4MiB",
		"share open --bearer --no-confirm --verb a.b --verb c.d --approve a.b --agent=you --note=x --dry-run --json",
		"share revoke s-aaaaa --reason x", "share revoke --all", "share extend s-aaaaa --ttl 99h", "share watch s-aaaaa --read-only=maybe",
		"call --agent you a.b x=1 -- --y=2", "lockdown on --reason x", "audit tail -f", "recipient add a @b --replace --replace",
		"init --token ost1secret --relay x:1 --force", "share open --max-calls -1", "share open --max-output 99999999999GiB",
		"", "--help", "-", "--", "---", "--=", "-=x", "--json=maybe", "completion bash", "__complete -- share open --verb", "__man", "-\x01\x00\t\xdfr",
	) {
		f.Add(strings.ReplaceAll(line, " ", "\n"), "OPENSCOPE_JSON=1\nOPENSCOPE_SOCKET=/nowhere")
	}
	f.Fuzz(func(t *testing.T, line, environ string) {
		words := strings.Split(line, "\n")
		if len(words) > 64 || len(line) > 4096 {
			return
		}
		tried, code, stdout, stderr := commandLine(t, words, environ)
		if code != int(term.OK) && code != int(term.Usage) {
			t.Errorf("%q: exit %d: %s", words, code, stderr)
		}
		if code == int(term.Usage) && (stdout != "" || !refusal(stderr)) {
			t.Errorf("%q is refused with %q and %q", words, stdout, stderr)
		}
		if tried.open != nil {
			checkOpen(t, words, tried.open)
		}
		if code != int(term.OK) || !tried.ran || slices.Contains(words, "--") {
			return
		}
		// A flag means the same wherever it stands.
		if again, code, _, stderr := commandLine(t, append(slices.Clone(words), "--json"), environ); !hasJSON(words) && (code != int(term.OK) || !again.ran) {
			t.Errorf("%q with --json at its end: exit %d: %s", words, code, stderr)
		}
	})
}

// everyFlag is a command line for each flag of each command.
func everyFlag(c *term.Command, path []string) (lines []string) {
	if c.Flags != nil {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		c.Flags(fs)
		fs.VisitAll(func(f *flag.Flag) {
			lines = append(lines, strings.Join(append(slices.Clone(path), "--"+f.Name, "1", "x"), " "))
		})
	}
	for _, sub := range c.Subcommands {
		lines = append(lines, everyFlag(sub, append(slices.Clone(path), sub.Name))...)
	}
	return lines
}

// refusal is one line, and at most one more for the hint, of plain text as the
// cleaner leaves it: a tab is.
func refusal(stderr string) bool {
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	plain := !strings.ContainsFunc(stderr, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f })
	return plain && strings.HasPrefix(stderr, program+": ") && len(lines) <= 2 && (len(lines) < 2 || strings.HasPrefix(lines[1], "hint: "))
}

// hasJSON reports whether --json is among the flags already, in any writing.
func hasJSON(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		return strings.HasPrefix(w, "-") && name == "json"
	})
}

// checkOpen holds what share open would ask for to the contract, whatever the
// words were.
func checkOpen(t *testing.T, words []string, req *control.OpenRequest) {
	t.Helper()
	switch {
	case req.TTL < 0 || req.TTL > 30*time.Minute:
		t.Errorf("%q opens for %v", words, req.TTL)
	case req.Bearer == (req.To != "") || req.Agent == "" || len(req.Specs) == 0 || req.NoConfirm && !req.Bearer:
		t.Errorf("%q opens %+v", words, req)
	}
}

// F9, its --verb: a SPEC arrives byte for byte, wherever among the flags it stands.
// What it says is passport.FuzzParseSpec's.
func FuzzVerbFlag(f *testing.F) {
	for _, spec := range []string{"a.b", "a.b:x=1", "a.b:x=1|2,y=1..3", `a.b:x="q,|\"\\"`, "a.b:x^=web-", "--help", "a.b:", "=", "a.b:x=\x1b[31m"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		if len(spec) > 4096 {
			return
		}
		before, codeBefore, _, _ := commandLine(t, []string{"share", "open", "--verb", spec, "--agent", "you", "--to", "b"}, "")
		after, codeAfter, _, _ := commandLine(t, []string{"share", "open", "--agent=you", "--to=b", "--verb=" + spec}, "")
		if codeBefore != codeAfter || codeBefore != 0 || before.open.Specs[0] != spec || !slices.Equal(before.open.Specs, after.open.Specs) {
			t.Fatalf("%q arrives as %+v and %+v", spec, before.open, after.open)
		}
	})
}
