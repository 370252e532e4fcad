package term

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Candidate is one word that could stand where completion is asked for. One that
// ends in = : or , goes on: no space is put behind it.
type Candidate struct{ Text, About string }

// Completing is a command line up to the word that is to be completed.
type Completing struct {
	Env   *Env
	Words []string      // the positional words before it
	Flags *flag.FlagSet // the command's, with what is set so far
	Flag  string        // whose value it is; empty for a positional word
	Word  string        // its beginning
}

// Value is the value of a flag so far, or empty.
func (c Completing) Value(name string) string {
	if f := c.Flags.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// completeTime is how long a person waits for a list; what is not there then is
// not offered.
const completeTime = 2 * time.Second

// filesMark, as the only line, has the shell offer the names of files.
const filesMark = ":files"

// completeCommand answers the shells' scripts. Its words are the command line
// behind the program's name; the last one, which may be empty, is to be completed.
func completeCommand(root *Command) *Command {
	line := ""
	return &Command{
		Name: "__complete", Hidden: true, Args: "[WORDS]", MaxArgs: -1,
		Short: "what could stand at the end of a command line; for the scripts that completion prints",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&line, "line", "", "the whole `LINE` instead, as it was typed")
		},
		Run: func(ctx context.Context, env *Env, words []string) error {
			if line != "" {
				words = splitLine(line)[1:]
			}
			if len(words) == 0 {
				words = []string{""}
			}
			ctx, cancel := context.WithTimeout(ctx, completeTime)
			defer cancel()
			// Nobody is to be asked anything meanwhile.
			quiet := *env
			quiet.Stdin, quiet.Stderr, quiet.JSON = strings.NewReader(""), io.Discard, false
			printCandidates(env.Stdout, root.complete(ctx, &quiet, words), words[len(words)-1])
			return nil
		},
	}
}

// printCandidates writes those that fit, each once: the word, and behind a tab
// what it is. Both are cleaned, for verbs' summaries may be anybody's.
func printCandidates(w io.Writer, all []Candidate, word string) {
	seen := make(map[string]bool)
	for _, c := range all {
		text, about := OneLine(c.Text), strings.ReplaceAll(OneLine(c.About), "\t", " ")
		if seen[text] || text != c.Text || !strings.HasPrefix(text, word) && text != filesMark {
			continue
		}
		seen[text] = true
		fmt.Fprintf(w, "%s\t%s\n", text, about)
	}
}

// complete walks down to the command that the words end in.
func (c *Command) complete(ctx context.Context, env *Env, words []string) []Candidate {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(new(bool), "json", false, "print JSON")
	if c.Flags != nil {
		c.Flags(fs)
	}
	last := words[len(words)-1]
	at := Completing{Env: env, Flags: fs}
	for rest := words[:len(words)-1]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		name, value, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
		f := fs.Lookup(name)
		switch {
		case len(word) > 1 && word[0] == '-' && f == nil:
			// Unknown: the command will say so.
		case len(word) > 1 && word[0] == '-' && inline:
			_ = fs.Set(name, value) // as above
		case len(word) > 1 && word[0] == '-' && isBool(f):
			_ = fs.Set(name, "true")
		case len(word) > 1 && word[0] == '-' && len(rest) == 0:
			at.Flag, at.Word = name, last
			return c.candidates(ctx, at)
		case len(word) > 1 && word[0] == '-':
			_ = fs.Set(name, rest[0])
			rest = rest[1:]
		case len(at.Words) == 0 && c.sub(word) != nil:
			return c.sub(word).complete(ctx, env, append(slices.Clone(rest), last))
		default:
			at.Words = append(at.Words, word)
		}
	}
	at.Word = last
	if strings.HasPrefix(last, "-") {
		return c.flagCandidates(ctx, at)
	}
	var all []Candidate
	if len(at.Words) == 0 {
		for _, s := range c.Subcommands {
			if !s.Hidden {
				all = append(all, Candidate{s.Name, s.Short})
			}
		}
	}
	return append(all, c.candidates(ctx, at)...)
}

// flagCandidates are the flags, or behind = the values of one.
func (c *Command) flagCandidates(ctx context.Context, at Completing) []Candidate {
	if before, value, inline := strings.Cut(at.Word, "="); inline {
		at.Flag, at.Word = strings.TrimLeft(before, "-"), value
		all := c.candidates(ctx, at)
		for i := range all {
			if all[i].Text != filesMark {
				all[i].Text = before + "=" + all[i].Text
			}
		}
		return all
	}
	var all []Candidate
	at.Flags.VisitAll(func(f *flag.Flag) {
		_, usage := flag.UnquoteUsage(f)
		all = append(all, Candidate{flagName(f), usage})
	})
	return append(all, Candidate{"--help", "say how the command is used"})
}

// candidates asks the command. The name of a value says where it is a file's.
func (c *Command) candidates(ctx context.Context, at Completing) []Candidate {
	kind := c.Args
	if at.Flag != "" {
		f := at.Flags.Lookup(at.Flag)
		if f == nil {
			return nil
		}
		kind, _ = flag.UnquoteUsage(f)
	}
	if c.Complete != nil {
		if all := c.Complete(ctx, at); len(all) > 0 {
			return all
		}
	}
	if kind = strings.Trim(kind, "[]"); kind == "FILE" || kind == "DIR" {
		return []Candidate{{Text: filesMark}}
	}
	return nil
}

// flagName is the flag as it is written: -f, --force.
func flagName(f *flag.Flag) string {
	if len(f.Name) == 1 {
		return "-" + f.Name
	}
	return "--" + f.Name
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// splitLine cuts a command line into words as a shell would, as far as quotes
// and backslashes go; an open quote ends with the line. There is always a last
// word, and one before it.
func splitLine(line string) []string {
	var words []string
	var word strings.Builder
	quote, inWord := byte(0), false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == c:
			quote = 0
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	words = append(words, word.String())
	if len(words) == 1 {
		words = append(words, "")
	}
	return words
}
