package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openscope/passport"
	"openscope/wire/term"
)

func TestFoldersAreThePlatforms(t *testing.T) {
	sep := string(filepath.Separator)
	for _, c := range []struct {
		system        string
		env           map[string]string
		config, state string
	}{
		{"linux", map[string]string{"HOME": "/home/a"}, "/home/a/.config/openscope", "/home/a/.local/state/openscope"},
		{"linux", map[string]string{"HOME": "/home/a", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c/openscope", "/s/openscope"},
		{"linux", map[string]string{"HOME": "/home/a", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "s"}, "/home/a/.config/openscope", "/home/a/.local/state/openscope"},
		{"darwin", map[string]string{"HOME": "/Users/a"}, "/Users/a/Library/Application Support/openscope", "/Users/a/Library/Application Support/openscope"},
		{"darwin", map[string]string{"HOME": "/Users/a", "XDG_CONFIG_HOME": "/c"}, "/c/openscope", "/c/openscope"},
		{"windows", map[string]string{"UserProfile": "/U/a", "AppData": "/U/a/AppData/Roaming", "LocalAppData": "/U/a/AppData/Local"}, "/U/a/AppData/Roaming/openscope", "/U/a/AppData/Local/openscope"},
		{"windows", map[string]string{"UserProfile": "/U/a", "XDG_CONFIG_HOME": "/c"}, "/U/a/AppData/Roaming/openscope", "/U/a/AppData/Local/openscope"},
		{"windows", nil, "openscope", "openscope"},
	} {
		getenv := func(name string) string { return c.env[name] }
		config, state := configDirOn(c.system, getenv), stateDirOn(c.system, getenv)
		if want := strings.ReplaceAll(c.config, "/", sep); config != want {
			t.Errorf("%s %v: the configuration is in %s, want %s", c.system, c.env, config, want)
		}
		if want := strings.ReplaceAll(c.state, "/", sep); state != want {
			t.Errorf("%s %v: the state is in %s, want %s", c.system, c.env, state, want)
		}
	}
}

func TestTheHistoryKeepsNoSecretAndIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "history")
	h := openHistory(path)
	for _, line := range []string{
		"test.echo text=hello", "test.echo text=hello", " test.echo text=hidden", "", "test.echo text=osh1b040g20g30g2gc1",
		"OSH1S040G20G30G2GC1", "x ost1abcdefghij", "OPENSCOPE-SECRET-KEY-1ABCDEFGH", "test.echo text=\x1b[2J", strings.Repeat("x ", 2000),
		"test.echo text=" + strings.Repeat("Ab1", 20), "jobs",
	} {
		h.Add(line)
	}
	want := []string{"test.echo text=hello", "jobs"}
	if !slices.Equal(h.lines, want) || h.At(0) != "jobs" || h.Len() != 2 {
		t.Errorf("kept: %q", h.lines)
	}
	if again := openHistory(path); !slices.Equal(again.lines, want) {
		t.Errorf("read again: %q", again.lines)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for range maxHistory {
		h.Add("a")
		h.Add("b")
	}
	if h.Len() != maxHistory || h.At(0) != "b" {
		t.Errorf("%d lines", h.Len())
	}
}

var listed = []passport.Verb{
	{Name: "app.restart", Params: []passport.Param{
		{Name: "mode", Type: "enum", Allowed: passport.OneOf("soft", "soft reset", "hard")},
		{Name: "service", Type: "string", Allowed: passport.OneOf("web")},
		{Name: "seconds", Type: "integer", Allowed: passport.Between(1, 9)},
	}},
	{Name: "app.read"},
	{Name: "other.verb"},
}

func TestTabCompletesVerbsParametersAndValues(t *testing.T) {
	for _, c := range []struct {
		line, want string
		several    []string
	}{
		{"ot", "other.verb ", nil},
		{"app", "app.re", nil},
		{"app.re", "app.re", []string{"app.read", "app.restart"}},
		{"he", "help ", nil},
		{"help o", "help other.verb ", nil},
		{"app.restart se", "app.restart seconds=", nil}, // service is pinned
		{"app.restart seconds=5 ", "app.restart seconds=5 mode=", nil},
		{"app.restart mode=h", "app.restart mode=hard ", nil},
		{"app.restart mode=soft", "app.restart mode=soft", nil},
		{"app.restart nothing", "app.restart nothing", nil},
		{"nothing", "nothing", nil},
		{"", "", []string{"app.read", "app.restart", "cancel", "exit", "help", "jobs", "other.verb", "quit", "verbs"}},
	} {
		got, at, several := complete(listed, c.line, len(c.line))
		if c.line == "app.restart mode=soft" {
			got, several = strings.TrimSuffix(got, " "), nil
			at = len(got)
		}
		if got != c.want || at != len(got) || !slices.Equal(several, c.several) {
			t.Errorf("%q: %q at %d, %q", c.line, got, at, several)
		}
	}
	if got, at, _ := complete(listed, "oth rest", 3); got != "other.verb rest" || at != 10 {
		t.Errorf("%q at %d", got, at)
	}
}

func TestALineIsReadAsItWasWritten(t *testing.T) {
	for _, value := range []string{"a", "soft reset", `a"b`, `a\b`, "", "a & b", "&", "\t"} {
		words, behind, err := splitCall("v p=" + quoteWord(value) + " &")
		if err != nil || !behind || len(words) != 2 || words[1] != "p="+value {
			t.Errorf("%q: %q %v %v", value, words, behind, err)
		}
	}
	if _, behind, _ := splitCall(`v p="a &"`); behind {
		t.Error("an & inside of quotes is taken for one behind the call")
	}
	if _, _, err := splitCall(`v p="a`); err == nil {
		t.Error("a quote that is not closed is taken")
	}
}

func TestInterruptsEmptyTheLine(t *testing.T) {
	if got := string(replaceInterrupts([]byte("ab\x03cd"))); got != "ab"+emptyLine+"cd" {
		t.Errorf("%q", got)
	}
}

func TestTheCountdownIsInMinutesAndThenInSeconds(t *testing.T) {
	for left, want := range map[time.Duration]string{
		30 * time.Minute: "30m", 29*time.Minute + 59*time.Second: "29m", 2 * time.Minute: "120s", 1500 * time.Millisecond: "2s", 0: "0s",
	} {
		if got := countdown(left); got != want {
			t.Errorf("%v: %s", left, got)
		}
	}
}

func TestAMeterShowsOnlyWhatIsLongAndQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		m := &meter{screen: &screen, remaining: func() time.Duration { return time.Minute }, last: time.Now()}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.run(ctx); close(ended) }()
		out := m.stream(&screen, true)
		at := func(d time.Duration) string {
			time.Sleep(d)
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			defer screen.Reset()
			return screen.String()
		}
		if got := at(1500 * time.Millisecond); got != "" {
			t.Errorf("a short call: %q", got)
		}
		if got := at(1500 * time.Millisecond); !strings.Contains(got, "0 bytes in 2s; the session lasts another 1m0s") {
			t.Errorf("a long one: %q", got)
		}
		if _, err := out.Write([]byte("half a line")); err != nil {
			t.Fatal(err)
		}
		if got := at(5 * time.Second); got != "\r\x1b[Khalf a line" {
			t.Errorf("in the middle of a line: %q", got)
		}
		if _, err := out.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if got := at(3 * time.Second); !strings.Contains(got, "12 bytes in") {
			t.Errorf("after it: %q", got)
		}
		stop()
		<-ended
		if got := at(0); got != "\r\x1b[K" {
			t.Errorf("at the end: %q", got)
		}
	})
}

func TestJobsAreListedAndCancelled(t *testing.T) {
	var all jobs
	var screen bytes.Buffer
	started := make(chan struct{})
	err := all.start(t.Context(), &screen, "app.read x=1", func(ctx context.Context, j *job) error {
		out := &numbered{to: &screen, job: j}
		if _, err := out.Write([]byte("a line\nhalf\x1b")); err != nil {
			return err
		}
		out.flush()
		close(started)
		<-ctx.Done()
		return errors.New("cancelled")
	})
	if err != nil {
		t.Fatal(err)
	}
	<-started
	var list bytes.Buffer
	all.print(&list)
	if !strings.Contains(list.String(), "[1] 12 bytes in") || all.count() != 1 {
		t.Errorf("%s", list.String())
	}
	for _, number := range []string{"0", "2", "x", "", "-1"} {
		if all.cancel(number) == nil {
			t.Errorf("%q is cancelled", number)
		}
	}
	if err := all.cancel("1"); err != nil {
		t.Error(err)
	}
	all.wait()
	if want := "[1] app.read x=1\n[1] a line\n[1] half\\x1b\n[1] app.read x=1: cancelled\n"; screen.String() != want {
		t.Errorf("%q", screen.String())
	}
}

func TestRawBytesAreForNoTerminal(t *testing.T) {
	var out bytes.Buffer
	for raw, want := range map[bool]string{true: "\x1b[2J\xff", false: `\x1b[2J\xff`} {
		out.Reset()
		w := foreign(&out, raw)
		if _, err := w.Write([]byte("\x1b[2J\xff")); err != nil {
			t.Fatal(err)
		}
		if err := term.Flush(w); err != nil || out.String() != want {
			t.Errorf("raw %v: %q, %v", raw, out.String(), err)
		}
	}
}

func TestWhatADaemonSaysUnaskedHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, over := newTeller(), make(chan struct{})
		var shown []string
		reads := make(chan struct{})
		go told.run(over, func(text string) { <-reads; shown = append(shown, text) })
		const flood = 100_000
		began := time.Now()
		told.add("x")
		synctest.Wait() // it is on the screen, which stands still
		for range flood - 1 {
			told.add("x")
		}
		told.settle()
		if took := time.Since(began); took != settleFor {
			t.Errorf("a screen that stands still costs %v at the end, want %v", took, settleFor)
		}
		close(reads)
		time.Sleep(time.Second)
		synctest.Wait()
		if most := int(time.Second/tellEvery) + 3; len(shown) > most {
			t.Errorf("%d lines in a second, want at most %d", len(shown), most)
		}
		close(over)
		told.settle()
		if len(shown) > maxTold+2 || shown[1] != fmt.Sprintf("%d more notices came faster than they can be read", flood-maxTold-1) {
			t.Errorf("shown: %d, %q", len(shown), shown[:2])
		}
	})
}

func TestALineThatIsNoTextIsNoCall(t *testing.T) {
	for _, line := range []string{"test.echo text=\xff", "\xc0\xaftest.echo", "test.echo text=\xed\xa0\x80"} {
		if words, _, err := splitCall(line); err == nil {
			t.Errorf("%q is read as %q", line, words)
		}
	}
}
