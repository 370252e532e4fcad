package bench

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shell is one of the shells, or why it is not tested here.
func shell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s here", name)
	}
	return path
}

// prompt is what a shell says when it reads keys itself. Whatever is typed before
// that goes to the terminal, which knows no completion.
const prompt = "tell me> "

// typed is a shell on a terminal, with the completion of all three programs in it.
func typed(t *testing.T, env []string, setup string, argv ...string) *terminal {
	t.Helper()
	cmd := exec.Command(shell(t, argv[0]), argv[1:]...)
	cmd.Dir = protectedDir(t)
	cmd.Env = append([]string{"PATH=" + programs + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "PS1=" + prompt, "LC_ALL=C.UTF-8"}, env...)
	x := onTerminal(t, cmd, 200, 50)
	for _, p := range []string{"openscope", "openscope-relay", "openscope-reflect-client"} {
		setup += "; source <(" + p + " completion " + argv[0] + ")"
	}
	x.sees(prompt)
	x.types(setup + "; echo re''ady\r")
	x.sees("ready\r\n")
	return x
}

// completes types a line with a tab at its end, and waits for what becomes of it.
func (x *terminal) completes(line, want string) {
	x.t.Helper()
	x.sees(prompt)
	before := len(x.out.String())
	x.types(line + "\t")
	plain := func() string {
		return regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]|\x07`).ReplaceAllString(x.out.String()[before:], "")
	}
	for began := time.Now(); !strings.Contains(plain(), want); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			x.t.Fatalf("%s does not become %s: %q", line, want, plain())
		}
	}
	x.types("\x15\r") // a new line
}

// The shells' own completion, with a real daemon to ask.
func TestShellsCompleteWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo:text=hello|world", "test.mark")
	env := s.env()
	for name, start := range map[string][]string{
		"bash": {"bash", "--norc", "--noprofile", "-i"},
		"zsh":  {"zsh", "-f", "-i"},
	} {
		t.Run(name, func(t *testing.T) {
			setup := map[string]string{"bash": "bind 'set enable-bracketed-paste off'", "zsh": "autoload -U compinit; compinit -u -D"}[name]
			x := typed(t, env, setup, start...)
			for line, want := range map[string]string{
				"openscope sha":                                  "openscope share ",
				"openscope share rev":                            "openscope share revoke ",
				"openscope share revoke s":                       "openscope share revoke " + s.id,
				"openscope share open --ag":                      "openscope share open --agent ",
				"openscope share open --agent ":                  "openscope share open --agent you ",
				"openscope share open --agent you --to ":         "--to vendor-b ",
				"openscope share open --agent you --verb test.e": "--verb test.echo",
				"openscope call --agent you test.e":              "openscope call --agent you test.echo ",
				"openscope call --agent you test.echo t":         "openscope call --agent you test.echo text=",
				"openscope-relay ser":                            "openscope-relay serve ",
				"openscope-reflect-client call test.m":           "openscope-reflect-client call test.mark ",
				"openscope-reflect-client call test.echo text=h": "openscope-reflect-client call test.echo text=hello ",
			} {
				x.completes(line, want)
			}
		})
	}
	t.Run("fish", func(t *testing.T) {
		for line, want := range map[string]string{
			"openscope sha":                                  "share\t",
			"openscope share revoke ":                        s.id + "\tvendor-b, waiting",
			"openscope share open --agent you --verb test.e": "test.echo\tSay it again",
			"openscope call --agent you test.echo ":          "text=",
			"openscope-reflect-client call test.echo text=":  "text=world",
			"openscope-relay token re":                       "revoke\t",
		} {
			program, _, _ := strings.Cut(line, " ")
			cmd := exec.Command(shell(t, "fish"), "--no-config", "-c", program+" completion fish | source; complete -C "+"'"+line+"'")
			cmd.Env = append([]string{"PATH=" + programs + ":" + os.Getenv("PATH"), "HOME=" + protectedDir(t)}, env...)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %v, no %q in:\n%s", line, err, want, out)
			}
		}
	})
}

// The manual page is made from the same tree as --help: every command is on it,
// and mandoc finds nothing to say but that it has no date.
func TestTheManualPagesAreWhole(t *testing.T) {
	mandoc := shell(t, "mandoc")
	for program, words := range map[string][]string{
		"openscope":                {"share open", "share watch ID", "doctor", "lockdown on", "audit verify", "--max-output BYTES", "--read-only"},
		"openscope-relay":          {"serve", "token revoke NAME", "--self-signed"},
		"openscope-reflect-client": {"call VERB", "keygen", "--fingerprint WORDS"},
	} {
		page, stderr, code := run(t, nil, program, "__man")
		if code != 0 {
			t.Fatalf("%s __man: exit %d: %s", program, code, stderr)
		}
		lint := exec.Command(mandoc, "-T", "lint")
		lint.Stdin = strings.NewReader(page)
		found, _ := lint.CombinedOutput() // its status says that it found something
		for line := range strings.Lines(string(found)) {
			if !strings.Contains(line, "missing date") {
				t.Errorf("%s: %s", program, line)
			}
		}
		show := exec.Command(mandoc, "-T", "ascii", "-O", "width=200")
		show.Stdin = strings.NewReader(page)
		text, err := show.Output()
		if err != nil {
			t.Fatal(err)
		}
		plain := regexp.MustCompile(`.\x08`).ReplaceAllString(string(text), "")
		for _, word := range append(words, "completion bash|zsh|fish") {
			if !strings.Contains(plain, word) {
				t.Errorf("the page of %s lacks %q", program, word)
			}
		}
	}
}
