package term

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// toolTree is a command line with everything that can be completed.
func toolTree() *Command {
	var agent, file string
	var verbs List
	force := false
	fruit := func(_ context.Context, at Completing) []Candidate {
		switch at.Flag {
		case "agent":
			return []Candidate{{"you", "yourself"}, {"yonder", "far away"}}
		case "verb":
			return []Candidate{{at.Value("agent") + ":", ""}, {"x\x1b[31m", "not a word"}, {"xa", "a\tb\nc\x1b[2J"}}
		case "":
			return []Candidate{{fmt.Sprint("word", len(at.Words)), strings.Join(at.Words, "+")}}
		}
		return nil
	}
	flags := func(fs *flag.FlagSet) {
		fs.StringVar(&agent, "agent", agent, "the `NAME`")
		fs.StringVar(&file, "config", "", "a `FILE`")
		fs.Var(&verbs, "verb", "a `SPEC`")
		fs.BoolVar(&force, "force", false, "do it")
		fs.BoolVar(new(bool), "f", false, "go on")
	}
	run := func(context.Context, *Env, []string) error { return nil }
	return &Command{Name: "tool", Short: "a tool. - it's one", Flags: flags, Subcommands: []*Command{
		{Name: "share", Short: "sharing", Subcommands: []*Command{
			{Name: "open", Short: "open it", Flags: flags, Complete: fruit, Args: "ID", MaxArgs: -1, Run: run},
			{Name: "show", Short: "show it", Run: run},
		}},
		{Name: "check", Short: "check it", Args: "[FILE]", MaxArgs: 1, Run: run, Long: ".TH is no macro\n'nor this\n\n  a  b\n  c  d\nback\\slash"},
		{Name: "secret", Short: "hide it", Hidden: true, Run: run},
	}}
}

func completed(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	env := &Env{Program: "tool", Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard, Getenv: func(string) string { return "" }}
	if code := Main(t.Context(), env, toolTree(), append([]string{"__complete"}, args...)); code != 0 {
		t.Fatalf("%q: exit %d", args, code)
	}
	var words []string
	for line := range strings.Lines(out.String()) {
		word, _, _ := strings.Cut(line, "\t")
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestEveryPlaceOfACommandLineIsCompleted(t *testing.T) {
	for line, want := range map[string]string{
		"|":                               "check completion share",
		"sh|":                             "share",
		"share |":                         "open show",
		"share s|":                        "show",
		"share nothing |":                 "",
		"share open --|":                  "--agent --config --force --help --json --verb",
		"share open -|":                   "--agent --config --force --help --json --verb -f",
		"share open --agent |":            "yonder you",
		"share open --agent you|":         "you",
		"share open --agent=yo|":          "--agent=yonder --agent=you",
		"--agent me share open --verb |":  "me: xa",
		"share open --agent me --verb m|": "me:",
		"share open |":                    "word0",
		"share open a --force b |":        "word2",
		"share open --agent you a |":      "word1",
		"share open --config |":           ":files",
		"share open --config=x|":          ":files",
		"check |":                         ":files",
		"completion |":                    "bash fish zsh",
		"completion bash |":               "",
		"--nonsense share |":              "open show",
		"secret |":                        "",
	} {
		words := strings.Split(strings.TrimSuffix(line, "|"), " ")
		if got := completed(t, append([]string{"--"}, words...)...); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
		if got := completed(t, "--line", "tool "+strings.TrimSuffix(line, "|")); got != want {
			t.Errorf("%s as a line: %q, want %q", line, got, want)
		}
	}
}

func TestALineIsSplitAsAShellWould(t *testing.T) {
	for line, want := range map[string]string{
		"":                    "|",
		"a":                   "a|",
		"a ":                  "a|",
		"a  b":                "a|b",
		`a 'b c' "d e`:        "a|b c|d e",
		`a b\ c "x\"y" '\'`:   `a|b c|x"y|\`,
		`a "" x`:              "a||x",
		`a v:p='1|2`:          "a|v:p=1|2",
		"a b\\":               "a|b\\",
		`openscope call a.b `: "openscope|call|a.b|",
	} {
		if got := strings.Join(splitLine(line), "|"); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
		if len(splitLine(line)) < 2 {
			t.Errorf("%q: %q", line, splitLine(line))
		}
	}
}

// What is offered comes from others: no line of it is more than a line.
func TestCandidatesAreLines(t *testing.T) {
	var out bytes.Buffer
	printCandidates(&out, []Candidate{{"a\nb", ""}, {"a", "x\ty\nz\x1b[2J"}, {"a", "again"}, {"b", "does not fit"}}, "a")
	if got := out.String(); got != "a\tx y; z\\x1b[2J\n" {
		t.Errorf("%q", got)
	}
}

func TestTheManualPageHasEveryCommandAndFlagAndNoMacroOfItsTexts(t *testing.T) {
	page := manPage(&Env{Program: "tool"}, withOwn(toolTree()))
	for _, want := range []string{".SS share open ID", ".SS share show", ".SS check [FILE]", `.B \-\-agent NAME`, `.B \-f`, `\&.TH is no macro`, `\(aqnor this`, `back\eslash`, ".SS completion", ".B 130"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "secret") || strings.Contains(page, "__complete") {
		t.Error("the page has hidden commands")
	}
}
