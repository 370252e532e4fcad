package term

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"openscope/bench/vectors"
)

// line runs a command line against a small program.
func line(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var shared, text string
	var list List
	var ttl TTL
	var size Bytes
	yes := false
	define := func(fs *flag.FlagSet) { fs.StringVar(&shared, "shared", shared, "a `TEXT`") }
	root := &Command{
		Name: "prog", Short: "a program", Flags: define,
		Subcommands: []*Command{
			{
				Name: "do", Short: "does it", Args: "ONE [TWO]", MinArgs: 1, MaxArgs: 2,
				Flags: func(fs *flag.FlagSet) {
					define(fs)
					fs.StringVar(&text, "text", "", "a `TEXT`")
					fs.Var(&list, "list", "a `VALUE`")
					fs.Var(&ttl, "ttl", "a `TIME`")
					fs.Var(&size, "size", "a `SIZE`")
					fs.BoolVar(&yes, "yes", false, "yes")
				},
				Run: func(_ context.Context, env *Env, args []string) error {
					return env.Print(args, func(w io.Writer) {
						fmt.Fprint(w, args, shared, text, []string(list), time.Duration(ttl), uint64(size), yes)
					})
				},
			},
			{Name: "fail", Short: "fails", Run: func(context.Context, *Env, []string) error {
				return Errorf(Denied, "no: %w", errors.New("two\nlines \x1b[31m")).WithHint("run: prog do")
			}},
			{Name: "bug", Short: "is one", Run: func(context.Context, *Env, []string) error { return errors.New("a bug") }},
		},
	}
	var out, errs bytes.Buffer
	env := &Env{Program: "prog", Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = Main(t.Context(), env, root, args)
	return out.String(), errs.String(), code
}

func TestFlagsStandAnywhere(t *testing.T) {
	const want = "[a b]st[x y] 10m0s 4096 true"
	for _, args := range [][]string{
		{"--shared", "s", "do", "a", "b", "--text", "t", "--list", "x", "--list=y", "--ttl", "10m", "--size", "4KiB", "--yes"},
		{"do", "--shared=s", "a", "--text=t", "--list", "x", "b", "--list", "y", "--ttl=600s", "--size=4096", "-yes"},
		{"do", "--yes", "--ttl", "10m", "--size", "4096B", "--shared", "s", "--list", "x", "--list", "y", "--text", "t", "--", "a", "b"},
	} {
		if out, errs, code := line(t, "", args...); out != want || code != 0 {
			t.Errorf("%q: %d %q %q", args, code, out, errs)
		}
	}
	if out, _, code := line(t, "", "do", "--", "--text"); code != 0 || !strings.HasPrefix(out, "[--text]") {
		t.Errorf("after --, %q is no flag any more: %d %q", "--text", code, out)
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{}, {"no-such-command"}, {"do"}, {"do", "a", "b", "c"}, {"--no-such-flag"}, {"do", "a", "--no-such-flag"},
		{"do", "a", "--text"}, {"do", "a", "--text", "x", "--text", "y"}, {"do", "a", "--yes", "--yes"}, {"do", "a", "--yes=perhaps"},
		{"do", "a", "--ttl", "0"}, {"do", "a", "--ttl", "31m"}, {"do", "a", "--ttl", "-5m"}, {"do", "a", "--ttl", "soon"}, {"do", "a", "--ttl="},
		{"do", "a", "--ttl", "30m1ns"}, {"do", "a", "--ttl", "99999999999h"},
		{"do", "a", "--size", "0"}, {"do", "a", "--size", "-1"}, {"do", "a", "--size", "4MB"}, {"do", "a", "--size", "99999999999GiB"},
		{"--shared", "s", "--shared", "t", "do", "a"}, {"fail", "word"},
	} {
		out, errs, code := line(t, "", args...)
		if code != 2 || out != "" || !strings.HasPrefix(errs, "prog: ") {
			t.Errorf("%q: %d %q %q", args, code, out, errs)
		}
		checkErrorForm(t, errs)
	}
}

func checkErrorForm(t *testing.T, errs string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
	if len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		t.Errorf("not one line and a hint: %q", errs)
	}
}

func TestAnErrorIsOneLineWithItsCodeAndAHint(t *testing.T) {
	_, errs, code := line(t, "", "fail")
	if want := "prog: no: two; lines \\x1b[31m\nhint: run: prog do\n"; errs != want || code != 3 {
		t.Errorf("%d %q, want %q", code, errs, want)
	}
	if _, errs, code := line(t, "", "bug"); errs != "prog: a bug\n" || code != 1 {
		t.Errorf("%d %q", code, errs)
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"do", "--help"}, {"do", "x", "y", "z", "-h"}} {
		if out, errs, code := line(t, "", args...); code != 0 || errs != "" || !strings.Contains(out, "usage: prog") {
			t.Errorf("%q: %d %q %q", args, code, out, errs)
		}
	}
}

func TestJSONIsOneObject(t *testing.T) {
	for _, args := range [][]string{{"--json", "do", "a"}, {"do", "--json", "a"}, {"do", "a", "--json"}} {
		if out, _, code := line(t, "", args...); out != "[\"a\"]\n" || code != 0 {
			t.Errorf("%q: %d %q", args, code, out)
		}
	}
}

func TestJSONHoldsNothingThatATerminalActsOn(t *testing.T) {
	const hostile = "\x1b[2J\u009b31m\x7f\u202e\u2066\u200f\ufeff\x00\u2028 \U000e0041 é\tplain"
	var out bytes.Buffer
	if err := WriteJSON(&out, map[string]string{hostile: hostile}); err != nil {
		t.Fatal(err)
	}
	if text := strings.TrimSuffix(out.String(), "\n"); Clean(text) != text || strings.ContainsAny(text, "\n\t") {
		t.Errorf("on the terminal: %q", text)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[hostile] != hostile {
		t.Errorf("it is read as %q, %v", back, err)
	}
}

func TestAnErrorShowsNoSecretThatWasPastedIntoIt(t *testing.T) {
	for _, text := range []string{"osh1b040g20g30g2gc1", "OSH1S040G20G30G2GC1", "ost1abcdefghij", "OPENSCOPE-SECRET-KEY-1ABCDEFGH", "openscope-daemon-key-1abcdefgh"} {
		for _, args := range [][]string{{text}, {"--" + text}, {"do", "--shared", text, "--" + text}, {"do", text + "\n" + text, "x", "y"}} {
			out, errs, _ := line(t, "", args...)
			if strings.Contains(strings.ToLower(errs), strings.ToLower(text[len(text)-6:])) {
				t.Errorf("%q: %q %q", args, out, errs)
			}
		}
	}
	if garbled := "O!SH1B" + strings.Repeat("ABC123", 10); strings.Contains(Redact(garbled), "123ABC123") {
		t.Errorf("%q becomes %q", garbled, Redact(garbled))
	}
	if text := "an osh1 and an ost1, s-abc and osk1" + strings.Repeat("z9", 55) + " " + strings.Repeat("ab12", 16); Redact(text) != text {
		t.Errorf("%q becomes %q", text, Redact(text))
	}
}

func TestSecretsComeFromFilesToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(" hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := &Env{Stdin: strings.NewReader("piped\n")}
	for arg, want := range map[string]string{"@" + path: "hidden", "-": "piped", "plain": "plain"} {
		if got, err := env.Secret(arg); err != nil || got != want {
			t.Errorf("%s: %q, %v", arg, got, err)
		}
	}
	if _, err := env.Secret("@" + path + "-missing"); CodeOf(err) != Usage {
		t.Errorf("a missing file: %v", err)
	}
	env.Stdin = strings.NewReader(strings.Repeat("x", 70_000))
	if _, err := env.Secret("-"); CodeOf(err) != Usage || strings.Contains(err.Error(), "xxx") {
		t.Errorf("too long a secret: %v", err)
	}
}

func TestParametersAreNameAndValue(t *testing.T) {
	got, err := Params([]string{"a=1", "b=", "c=x=y"})
	if err != nil || fmt.Sprint(got) != "[[a 1] [b ] [c x=y]]" {
		t.Errorf("%v, %v", got, err)
	}
	for _, word := range []string{"a", "=1", ""} {
		if _, err := Params([]string{word}); CodeOf(err) != Usage {
			t.Errorf("%q: %v", word, err)
		}
	}
}

// harmless is the promise of Clean: nothing that a terminal acts on but a
// newline and a tab.
func harmless(s string) bool {
	for _, r := range s {
		switch {
		case r == '\n', r == '\t':
		case r < 0x20, r >= 0x7f && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return false
		}
	}
	return utf8.ValidString(s)
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"plain\ttext\n", "\x1b]0;title\x07", "\x9b31m", "\u202eabc", "é\xff\xfe", "\r\b\x7f", "👩‍💻", "\xe2\x80"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		vectors.HoldFuzzed(t, string(in), func(s string) { Clean(s) })
		whole := Clean(string(in))
		if !harmless(whole) {
			t.Fatalf("%q is cleaned to %q", in, whole)
		}
		if again := Clean(whole); again != whole {
			t.Fatalf("cleaning %q again changes it to %q", whole, again)
		}
		// However the stream was cut, the same comes out.
		var out bytes.Buffer
		c := NewCleaner(&out)
		for step, rest := int(cut)%7+1, in; len(rest) > 0; {
			n := min(step, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := c.Flush(); err != nil || out.String() != whole {
			t.Fatalf("%q in pieces of %d is %q, whole %q (%v)", in, int(cut)%7+1, out.String(), whole, err)
		}
	})
}

// F12: what cleaning allocates is bounded by what it is given, also where every
// byte of a mebibyte has to be made visible.
func TestHostileTextCostsLittle(t *testing.T) {
	inputs := [][]byte{
		bytes.Repeat([]byte{0x1b}, 1<<20), bytes.Repeat([]byte{0xff}, 100_000), bytes.Repeat([]byte("\u202e"), 100_000),
		bytes.Repeat([]byte("\u0600"), 100_000), bytes.Repeat([]byte("\U000e0001"), 100_000), bytes.Repeat([]byte("\u009b"), 100_000),
		bytes.Repeat([]byte("plain\ttext\n"), 10_000), []byte("\x1b]0;title\x07"), bytes.Repeat([]byte("\xe2\x80"), 30_000),
	}
	most := vectors.HoldAllocations(t, inputs, 3, func(b []byte) { Clean(unsafe.String(unsafe.SliceData(b), len(b))) })
	t.Logf("a text: at most %d bytes beyond four times the input", most)
	most = vectors.HoldAllocations(t, inputs, 3, func(b []byte) {
		c := NewCleaner(io.Discard)
		_, err := c.Write(b)
		if err := errors.Join(err, c.Flush()); err != nil {
			t.Error(err)
		}
	})
	t.Logf("a stream: at most %d bytes beyond four times the input", most)
}

func TestOutputUnderJSONIsALineForEachPiece(t *testing.T) {
	var out bytes.Buffer
	w := JSONStream(&out, "stdout")
	for _, piece := range []string{"text\n", "\xff\xfe"} {
		if _, err := io.WriteString(w, piece); err != nil {
			t.Fatal(err)
		}
	}
	if want := "{\"stream\":\"stdout\",\"text\":\"text\\n\"}\n{\"stream\":\"stdout\",\"base64\":\"//4=\"}\n"; out.String() != want {
		t.Errorf("%s", out.String())
	}
}
