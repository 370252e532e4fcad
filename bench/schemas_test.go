package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// schemas are those of testdata/schemas: of each program, what a line of each
// command's --json is.
var schemas = sync.OnceValue(func() map[string]map[string]*jsonschema.Resolved {
	all := make(map[string]map[string]*jsonschema.Resolved)
	for _, program := range []string{"openscope", "openscope-relay", "openscope-reflect-client"} {
		text, err := os.ReadFile("../testdata/schemas/" + program + ".json")
		if err != nil {
			panic(err)
		}
		var file jsonschema.Schema
		if err := json.Unmarshal(text, &file); err != nil {
			panic(fmt.Errorf("%s: %w", program, err))
		}
		all[program] = make(map[string]*jsonschema.Resolved)
		for name := range file.Defs {
			one := &jsonschema.Schema{Defs: file.Defs, Ref: "#/$defs/" + name}
			if all[program][name], err = one.Resolve(nil); err != nil {
				panic(fmt.Errorf("%s: %s: %w", program, name, err))
			}
		}
	}
	return all
})

// commandOf is the name of the schema for a command line.
func commandOf(program string, args []string) string {
	if slices.Contains(args, "--dry-run") {
		return "share open --dry-run"
	}
	for i, arg := range args {
		for _, sub := range args[i+1:] { // flags may stand between the two
			if schemas()[program][arg+" "+sub] != nil {
				return arg + " " + sub
			}
		}
		if schemas()[program][arg] != nil {
			return arg
		}
	}
	return ""
}

// conforms holds each line that a command has printed to the command's schema.
func conforms(program string, args []string, stdout string) error {
	name := commandOf(program, args)
	if name == "" {
		return fmt.Errorf("there is no schema for %s %s", program, strings.Join(args, " "))
	}
	for line := range strings.Lines(stdout) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil || !strings.HasSuffix(line, "\n") {
			return fmt.Errorf("%s %s prints no line of JSON: %w: %s", program, name, err, line)
		}
		if err := schemas()[program][name].Validate(v); err != nil {
			return fmt.Errorf("%s %s prints what its schema does not have: %w: %s", program, name, err, line)
		}
	}
	return nil
}

// unshaped are the commands without a schema, and why.
var unshaped = map[string]string{
	"openscope daemon":             "it prints its log",
	"openscope-relay serve":        "it prints its log",
	"openscope-reflect-client mcp": "it speaks MCP",
}

// shaped is a test of what --json prints.
type shaped struct {
	*site
	seen map[string]bool
}

// prints runs a command, which has to succeed and to print something that is as
// its schema says.
func (s *shaped) prints(program string, args ...string) string {
	s.t.Helper()
	out, stderr, code := run(s.t, s.env(), program, append(args, "--json")...)
	if code != 0 || out == "" {
		s.t.Errorf("%s %s: exit %d, %q %q", program, strings.Join(args, " "), code, out, stderr)
	}
	if err := conforms(program, args, out); err != nil {
		s.t.Error(err)
	}
	s.seen[program+" "+commandOf(program, args)] = true
	return out
}

// starts runs a command meanwhile; what finishes it waits for its end, and holds
// what it has printed to its schema.
func (s *shaped) starts(program string, args ...string) (stdout, stderr *lockedBuffer, finish func()) {
	s.t.Helper()
	stdout, stderr = new(lockedBuffer), new(lockedBuffer)
	cmd := command(s.env(), program, append(args, "--json")...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := sync.OnceValue(cmd.Wait)
	s.t.Cleanup(func() { _, _ = cmd.Process.Kill(), ended() })
	return stdout, stderr, func() {
		s.t.Helper()
		_ = cmd.Process.Signal(os.Interrupt) // for those that go on by themselves
		_ = ended()
		if err := conforms(program, args, stdout.String()); err != nil || stdout.String() == "" {
			s.t.Errorf("%s %s: %v, %q %q", program, args[0], err, stdout.String(), stderr.String())
		}
		s.seen[program+" "+commandOf(program, args)] = true
	}
}

// printed waits until something is there.
func printed(t *testing.T, b *lockedBuffer, what string) {
	t.Helper()
	until(t, 10*time.Second, what+" is printed", func() bool { return strings.Contains(b.String(), what) })
}

var headOfCommand = regexp.MustCompile(`(?m)^\.SS ([a-z -]+?)( [^a-z ].*)?$`)

// commandsOfPage are those that a manual page describes.
func commandsOfPage(page string) (names []string) {
	for _, m := range headOfCommand.FindAllStringSubmatch(strings.NewReplacer(`\`, "", " bash|zsh|fish", "").Replace(page), -1) {
		names = append(names, m[1])
	}
	return names
}

// Scripts read what --json prints: its shape is a promise, of every command that
// a manual page has.
func TestTheJSONOfEveryCommandIsAsItsSchemaSays(t *testing.T) {
	t.Parallel()
	s := &shaped{site: newSite(t), seen: make(map[string]bool)}
	s.aroundSessions()
	s.aSession()
	s.aBearerSession()
	stdout, _, finish := s.starts("openscope", "dev")
	printed(t, stdout, "client")
	finish()
	s.relays()
	for program := range schemas() {
		page, _, _ := run(t, nil, program, "__man")
		for _, name := range commandsOfPage(page) {
			command := program + " " + name
			if (unshaped[command] == "") != s.seen[command] {
				t.Errorf("%s: seen %v, and not to be seen because %q", command, s.seen[command], unshaped[command])
			}
			delete(s.seen, command)
		}
	}
	delete(s.seen, "openscope share open --dry-run")
	if len(s.seen) > 0 {
		t.Errorf("not on the manual pages: %q", slices.Sorted(maps.Keys(s.seen)))
	}
}

func (s *shaped) aroundSessions() {
	key := strings.TrimSpace(s.must("openscope-reflect-client", "key"))
	for _, line := range []string{
		"version", "status", "fingerprint", "doctor", "verbs --agent you", "completion bash", "recipient add vendor-c " + key + " --note spare",
		"recipient list", "recipient remove vendor-c", "policy check", "policy explain --agent you test.echo text=hello",
		"policy explain --agent you test.echo", "call --agent you test.echo text=hello", "audit tail", "audit verify", "init --dir " + s.path("other"),
		"share open --agent you --to vendor-b --verb test.echo --approve test.echo --dry-run", "lockdown on --reason why", "lockdown off",
	} {
		s.prints("openscope", strings.Fields(line)...)
	}
	s.prints("openscope-reflect-client", "keygen", "-o", s.path("another.key"))
	for _, command := range []string{"version", "key", "completion fish"} {
		s.prints("openscope-reflect-client", strings.Fields(command)...)
	}
}

// takes is what a member of a printed object is.
func takes[T any](t *testing.T, line, member string) T {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(members[member], &v); err != nil {
		t.Fatalf("%s: %v in %s", member, err, line)
	}
	return v
}

func (s *shaped) opens(args ...string) {
	s.t.Helper()
	opened := s.prints("openscope", append([]string{"share", "open", "--agent", "you", "--ttl", "5m"}, args...)...)
	s.id, s.handle = takes[string](s.t, opened, "id"), takes[string](s.t, opened, "handle")
	s.words = strings.Join(takes[[]string](s.t, opened, "words"), " ")
}

func (s *shaped) aSession() {
	s.opens("--to", "vendor-b", "--verb", "test.echo:text=hello", "--approve", "test.echo", "--verb", "test.mark", "--note", "a note")
	watch, _, over := s.starts("openscope", "share", "watch", s.id)
	printed(s.t, watch, "session")
	for _, command := range []string{"inspect", "verbs", "call test.mark"} {
		s.prints("openscope-reflect-client", strings.Fields(command)...)
	}
	for _, answer := range []string{"approve", "deny"} {
		stdout, _, finish := s.starts("openscope-reflect-client", "call", "test.echo", "text=hello")
		name := s.waiting(s.id)
		s.prints("openscope", "share", "list")
		s.prints("openscope", "share", answer, name)
		printed(s.t, stdout, "cause")
		finish()
	}
	stdout, _, finish := s.starts("openscope-reflect-client", "request", "test.count", "--reason", "why")
	until(s.t, 10*time.Second, "the request waits", func() bool {
		return strings.Contains(s.prints("openscope", "share", "show", s.id), `"reason":"why"`)
	})
	s.prints("openscope", "share", "approve", takes[[]struct{ Call string }](s.t, s.prints("openscope", "share", "show", s.id), "waiting")[0].Call)
	printed(s.t, stdout, "added")
	finish()
	s.prints("openscope", "share", "extend", s.id, "--ttl", "6m", "--verb", "test.follow")
	s.prints("openscope", "share", "extend", s.id, "--ttl", "7m")
	s.narrows()
	s.prints("openscope", "share", "revoke", s.id, "--reason", "enough")
	printed(s.t, watch, "ended")
	over()
	s.prints("openscope", "share", "list", "--all")
	s.prints("openscope", "audit", "show", s.id)
	s.write("report.json", s.prints("openscope", "audit", "report", s.id), 0o600)
	s.prints("openscope-reflect-client", "receipts")
	s.prints("openscope-reflect-client", "receipts", s.path("report.json"))
}

func (s *shaped) narrows() {
	grants, err := os.ReadFile(s.path("etc/grants.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("etc/grants.yaml", strings.Replace(string(grants), "bearer: true", "bearer: true\n      narrow: true", 1), 0o644)
	if err := s.daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	until(s.t, 10*time.Second, "the daemon has the new grants", func() bool {
		return strings.Contains(s.must("openscope", "audit", "tail", "--json"), `"kind":"reload"`)
	})
	s.prints("openscope-reflect-client", "narrow", "--verb", "test.mark")
	s.prints("openscope", "share", "list")
}

func (s *shaped) aBearerSession() {
	s.opens("--bearer", "--verb", "test.echo")
	stdout, stderr, finish := s.starts("openscope-reflect-client", "call", "test.echo", "text=hello")
	printed(s.t, stderr, "these words: ")
	words := regexp.MustCompile(`these words: (.*)\n`)
	until(s.t, 10*time.Second, "the words are there", func() bool { return words.MatchString(stderr.String()) })
	s.prints("openscope", "share", "show", s.id)
	s.prints("openscope", "share", "confirm", s.id, words.FindStringSubmatch(stderr.String())[1])
	printed(s.t, stdout, "cause")
	finish()
	s.prints("openscope", "share", "revoke", "--all")
}

func (s *shaped) relays() {
	state := s.path("another relay")
	s.prints("openscope-relay", "version")
	s.prints("openscope-relay", "completion", "zsh")
	s.prints("openscope-relay", "token", "new", "guest", "--expires", "1h", "--sessions", "2", "--state", state)
	s.prints("openscope-relay", "token", "list", "--state", state)
	s.prints("openscope-relay", "token", "revoke", "guest", "--state", state)
}
