package executor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const keyFile = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\nQyNTUxOQAAACBsecretsecretsecret\nAAAEDsecondline/secondline+==\n-----END OPENSSH PRIVATE KEY-----\n"

func filtered(t *testing.T, secrets *Secrets, chunks ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	f := NewFilter(&out, secrets)
	for _, c := range chunks {
		if n, err := f.Write([]byte(c)); err != nil || n != len(c) {
			t.Fatalf("wrote %d of %d: %v", n, len(c), err)
		}
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String(), f.Found()
}

func TestACredentialIsSuppressedWhereverItIsCut(t *testing.T) {
	secrets := NewSecrets([]byte("ost1abcdefghijkl\n"), []byte("Bearer ost1abxxxxxxxx"), []byte(keyFile))
	text := "a ost1abcdefghijkl b ost1abxxxxxxxx c ost1abcdefghijk d Bearer e\n" + keyFile + "ost1ost1abcdefghijkl"
	want := "a [suppressed] b [suppressed] c ost1abcdefghijk d Bearer e\n" +
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n[suppressed]\n[suppressed]\n-----END OPENSSH PRIVATE KEY-----\nost1[suppressed]"
	for cut := range len(text) + 1 {
		if got, n := filtered(t, secrets, text[:cut], text[cut:]); got != want || n != 5 {
			t.Fatalf("cut at %d: %d found, %q", cut, n, got)
		}
	}
	if got, n := filtered(t, secrets, strings.Split(text, "")...); got != want || n != 5 {
		t.Errorf("byte by byte: %d found, %q", n, got)
	}
}

func TestWithoutCredentialsNothingStandsBetween(t *testing.T) {
	for _, none := range [][]byte{nil, {}, []byte("short"), []byte(" \n"), []byte("-----BEGIN X-----")} {
		if NewSecrets(none) != nil {
			t.Errorf("%q is looked for", none)
		}
	}
	if got, n := filtered(t, nil, "as it is"); got != "as it is" || n != 0 {
		t.Errorf("%q, %d", got, n)
	}
}

// TestTheFilterAgreesWithASimpleSearch holds the automaton to strings.Index:
// the leftmost end of any credential, and of those that end there the longest.
func TestTheFilterAgreesWithASimpleSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("ab"[r.IntN(2)])
		}
		return b.String()
	}
	for range 3_000 {
		words := []string{word(8 + r.IntN(3)), word(8), word(8 + r.IntN(8))}
		text := word(r.IntN(60)) + words[r.IntN(3)] + word(r.IntN(20))
		secrets := NewSecrets([]byte(strings.Join(words, " ")))
		cut := r.IntN(len(text) + 1)
		got, n := filtered(t, secrets, text[:cut], text[cut:])
		want, m := plainly(words, text)
		if got != want || n != m {
			t.Fatalf("%q in %q: %q (%d), want %q (%d)", words, text, got, n, want, m)
		}
	}
}

func plainly(words []string, text string) (string, int) {
	done, found, start := "", 0, 0
	for end := 1; end <= len(text); end++ {
		longest := 0
		for _, w := range words {
			if strings.HasSuffix(text[start:end], w) {
				longest = max(longest, len(w))
			}
		}
		if longest > 0 {
			done += text[start:end-longest] + "[suppressed]"
			start = end
			found++
		}
	}
	return done + text[start:], found
}

func TestOnlyWhatCouldBeACredentialIsHeldBack(t *testing.T) {
	var out bytes.Buffer
	f := NewFilter(&out, NewSecrets([]byte("abcdefgh")))
	for _, step := range []struct{ in, all string }{{"login: ", "login: "}, {"abc", "login: "}, {"x", "login: abcx"}, {"abab", "login: abcxab"}} {
		if _, err := f.Write([]byte(step.in)); err != nil || out.String() != step.all {
			t.Errorf("after %q: %q, %v", step.in, out.String(), err)
		}
	}
}

func TestAFilterPassesTheWritersErrorOn(t *testing.T) {
	broken := errors.New("broken")
	f := NewFilter(writerFunc(func([]byte) (int, error) { return 0, broken }), NewSecrets([]byte("abcdefgh")))
	if _, err := f.Write([]byte("xyz")); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestCredentialsArePrintedByNoVerb(t *testing.T) {
	secrets := NewSecrets([]byte("abcdefgh"))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, secrets); !strings.Contains(text, "(credentials)") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	data := bytes.Repeat([]byte("Nov 25 07:50:54 web-1 systemd[1]: Started session of user.\n"), 555)
	for name, secrets := range map[string]*Secrets{"none": nil, "two": NewSecrets([]byte("ost1abcdefghijkl"), []byte(keyFile))} {
		b.Run(name, func(b *testing.B) {
			f := NewFilter(io.Discard, secrets)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, _ = f.Write(data)
			}
		})
	}
}
