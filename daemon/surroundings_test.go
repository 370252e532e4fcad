package daemon

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/principal"
	"openscope/wire/call"
)

var limitLine = regexp.MustCompile(`(?m)^(Max .*?)\s{2,}(\S+)\s+(\S+)`)

// limitsOf reads the text of /proc/PID/limits.
func limitsOf(text string) map[string]string {
	limits := make(map[string]string)
	for _, m := range limitLine.FindAllStringSubmatch(text, -1) {
		limits[m[1]] = m[2] + " " + m[3]
	}
	return limits
}

// TestEverySampleRunsInTheFixedSurroundings is E4: each verb of each sample finds
// itself in exactly the same place, whatever the daemon was started with.
func TestEverySampleRunsInTheFixedSurroundings(t *testing.T) {
	t.Setenv("SECRET", "of the daemon's own")
	t.Setenv("LD_PRELOAD", "/none")
	s := newSampleRange(t, false)
	if err := os.WriteFile(filepath.Join(s.dir, "look"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	as, err := principal.Lookup(s.runAs)
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for _, g := range as.GIDs {
		groups = append(groups, fmt.Sprint(g))
	}
	ids := func(id uint32) string { return strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%d\t", id), 4), "\t") }
	home := "/"
	if s.runAs == s.me() {
		home = os.Getenv("HOME")
	}
	want := map[string]string{
		"umask": "0077", "folder": "/", "descriptors": "0, 1, 2, 3", // ls has the folder as its fourth
		"Uid": ids(as.UID), "Gid": ids(as.GID), "Groups": strings.Join(groups, " "), "NoNewPrivs": "1",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "SigBlk": none, "SigIgn": none,
		"PATH": executor.DefaultPath, "LANG": "C.UTF-8", "HOME": home, "USER": s.runAs, "LOGNAME": s.runAs,
	}
	own, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	limits := limitsOf(string(own))
	limits["Max core file size"], limits["Max open files"] = "0 0", "1024 4096"
	looked := 0
	for _, v := range s.verbs {
		r, out := s.call(v.Name, goodValues(v))
		if r.Cause != call.Exited.String() || r.Status != 0 {
			t.Errorf("%s: %+v", v.Name, r)
			continue
		}
		_, out, isCommand := strings.Cut(out, "\x00\n")
		if !isCommand {
			continue // a request
		}
		looked++
		text, found := out[:strings.Index(out, "Limit ")], limitsOf(out)
		if got := surroundings(text); !maps.Equal(got, want) {
			t.Errorf("%s runs in\n%v, want\n%v", v.Name, got, want)
		}
		if !maps.Equal(found, limits) {
			t.Errorf("%s runs within\n%v, want\n%v", v.Name, found, limits)
		}
	}
	if looked < 25 {
		t.Errorf("only %d verbs were looked at", looked)
	}
}

const none = "0000000000000000"

// surroundings reads what a stand-in says, line by line.
func surroundings(text string) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.IndexAny(line, " :=")
		if i < 0 {
			continue
		}
		found[line[:i]] = strings.TrimSpace(line[i+1:])
	}
	return found
}
