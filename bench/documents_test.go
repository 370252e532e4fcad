package bench

import (
	"html"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documents are the pages that people follow.
func documents(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../[rdc]*/README.md") // relay, daemon, client
	if err != nil || len(found) < 2 {
		t.Fatalf("pages: %v, %v", found, err)
	}
	return append(found, "../README.md", "../CONTRIBUTING.md")
}

// block is a fenced block of a document. Its first line says where it is for:
//
//	# inside                   root on the machine in the closed network
//	# inside, as alice         a user there
//	# outside, at a terminal   with answers to be typed
//	# inside: /etc/…           the text of a file there
//
// A block without such a line is for the folder of this repository.
type block struct {
	where    string // document and line
	kind     string // what stands behind the fence
	machine  string
	user     string
	terminal bool
	file     string
	lines    []string
}

var placeLine = regexp.MustCompile(`^# (relay|inside|outside)(?:, as ([a-z]+)|(, at a terminal)|: (/\S+))?$`)

// blocks are a document's fenced blocks of commands and files.
func blocks(t *testing.T, path string) []block {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var open *block
	for i, line := range strings.Split(string(text), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{where: strings.TrimPrefix(path, "../") + ":" + strconv.Itoa(i+1), kind: fence}
		case isFence:
			if open.kind == "sh" || open.file != "" {
				all = append(all, *open)
			}
			open = nil
		case open != nil:
			open.take(line)
		}
	}
	if open != nil {
		t.Fatalf("%s: the last block does not end", path)
	}
	return all
}

func (b *block) take(line string) {
	if m := placeLine.FindStringSubmatch(line); m != nil && len(b.lines) == 0 {
		b.machine, b.user, b.terminal, b.file = m[1], m[2], m[3] != "", m[4]
		return
	}
	if b.file == "" {
		line, _, _ = strings.Cut(line, "  #") // a remark at the end of a command
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			return
		}
	}
	b.lines = append(b.lines, line)
}

// spoken are commands of the programs in running text, and in lines set off by
// four spaces.
var spoken = regexp.MustCompile("(?m)(?:`|^    +)((?:openscope|openscope-relay|openscope-reflect-client) [^`\n]+)(?:`|$)")

// elsewhere are the commands in blocks that are none of the programs', and what
// a machine must have for them. All blocks that name a machine are run there by
// TestTenMinutesOnThreeMachines (make test-long).
var elsewhere = []string{"dpkg", "systemctl", "journalctl", "tar", "cat", "chmod", "mkdir", "mv", "rm", "bash"}

func TestEveryCommandInTheDocumentsIsUnderstood(t *testing.T) {
	t.Parallel()
	targets := makeTargets(t)
	for _, path := range documents(t) {
		said := 0
		for _, b := range blocks(t, path) {
			if b.file != "" {
				continue
			}
			for _, line := range b.lines {
				said++
				if target, ok := strings.CutPrefix(line, "make "); ok && b.machine == "" {
					if !slices.Contains(targets, target) {
						t.Errorf("%s: there is no make %s", b.where, target)
					}
					continue
				}
				understood(t, b.where, line)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range spoken.FindAllStringSubmatch(string(text), -1) {
			said++
			understood(t, path, found[1])
		}
		if said == 0 {
			t.Errorf("%s says no command: the search for them finds nothing", path)
		}
	}
}

// understood asks the program for help at the end of the command: a command or
// a flag that there is not is an error before that.
func understood(t *testing.T, where, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, "  #")
	words := strings.Fields(line)
	if at := slices.IndexFunc(words, func(w string) bool { return w == "|" }); at >= 0 {
		words = words[:at]
	}
	if !strings.HasPrefix(words[0], "openscope") {
		if !slices.Contains(elsewhere, words[0]) {
			t.Errorf("%s: %s is a command of nobody here", where, words[0])
		}
		return
	}
	stdout, stderr, code := run(t, nil, words[0], append(words[1:], "--help")...)
	if code != 0 || !strings.HasPrefix(stdout, "usage: "+words[0]) {
		t.Errorf("%s: %s: exit %d\n%s", where, line, code, stderr)
	}
}

func makeTargets(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	return all
}

// What a document names, there is: numbers to alert on, and files of this tree.
func TestWhatTheDocumentsNameIsThere(t *testing.T) {
	metrics, err := os.ReadFile("../relay/admin/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`openscope_relay_([a-z_]+)`).FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(metrics), m[1]) {
				t.Errorf("%s: there is no metric %s", path, m[0])
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

// A picture says what its source says: every word of a label is in the drawing.
func TestThePicturesAreThoseOfTheirSources(t *testing.T) {
	sources, err := filepath.Glob("../wire/diagrams/*.dot")
	if err != nil || len(sources) != 2 {
		t.Fatalf("%d sources of pictures: %v", len(sources), err)
	}
	for _, path := range sources {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		drawing, err := os.ReadFile(strings.TrimSuffix(path, ".dot") + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		drawn := make(map[string]int)
		for _, m := range regexp.MustCompile(`<text [^>]*>([^<]*)</text>`).FindAllStringSubmatch(string(drawing), -1) {
			drawn[strings.Join(strings.Fields(html.UnescapeString(strings.ReplaceAll(m[1], "\u00a0", " "))), " ")]++
		}
		said := make(map[string]int)
		for _, m := range regexp.MustCompile(`label="([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
			for _, line := range strings.Split(m[1], `\n`) {
				said[strings.Join(strings.Fields(line), " ")]++
			}
		}
		if !maps.Equal(said, drawn) {
			t.Errorf("%s and its drawing differ (make diagrams):\n%v\n%v", path, said, drawn)
		}
	}
}
