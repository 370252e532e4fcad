package executor

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestAShellReadsBackWhatWasQuoted(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	words := []string{"", " ", "'", "''", `'\''`, `"`, `\`, "$HOME", "$(id)", "`id`", "a\nb", "*", "?", "[a]", "~", "!x", "#c", "-n", "=", "a=b", "{a,b}", "\xff", "é", "x'y\"z\\"}
	const alphabet = " \t\n'\"\\$`!*?[]{}()<>|&;#~=%-abcXYZ019é\xfe"
	for range quotedWords {
		word := make([]byte, r.IntN(12))
		for i := range word {
			word[i] = alphabet[r.IntN(len(alphabet))]
		}
		words = append(words, string(word))
	}
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"bash"}, {"busybox", "sh"}} {
		t.Run(shell[0], func(t *testing.T) { readsBack(t, shell, words) })
	}
}

// readsBack holds a shell to reading exactly the words that were quoted.
func readsBack(t *testing.T, shell, words []string) {
	if _, err := exec.LookPath(shell[0]); err != nil {
		t.Skip("no such shell here: ", err)
	}
	for batch := range slices.Chunk(words, 500) {
		line := Quote(append([]string{"/usr/bin/printf", `%s\0`}, batch...))
		var out bytes.Buffer
		cmd := exec.Command(shell[0], append(shell[1:], "-s")...)
		cmd.Stdin, cmd.Stdout = strings.NewReader(line+"\n"), &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v", shell, err)
		}
		got := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
		if !slices.Equal(got, batch) {
			t.Fatalf("%v reads other words back", shell)
		}
	}
}

func TestHarmlessWordsStayBare(t *testing.T) {
	for want, argv := range map[string][]string{
		"/bin/echo a-b_c.d:e/f@g%h+i,j 'a b'": {"/bin/echo", "a-b_c.d:e/f@g%h+i,j", "a b"},
		`'echo' ''`:                           {"echo", ""},
		`'it'\''s'`:                           {"it's"},
	} {
		if got := Quote(argv); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
