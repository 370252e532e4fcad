package bench

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// contract is how each command must be seen to end: by a line of a script in
// testdata/scripts that wants the exit code, or by the test that is named, where
// a script has no second user, no terminal, or nobody at the other end. That
// each way of being refused leaves one line and a hint is asked by the scripts'
// exit command.
const contract = `
openscope init: 0 2 6
openscope daemon: 0=TestKillingTheDaemonLeavesNothingBehind 2 6
openscope dev: 0=TestTheJSONOfEveryCommandIsAsItsSchemaSays 2
openscope status: 0 2 7
openscope version: 0 2
openscope fingerprint: 0 2 7
openscope doctor: 0 2 6 7
openscope verbs: 0 2 3 7
openscope call: 0 2 3 4 5 7
openscope share open: 0 2 3 4 7 8=TestADaemonHoldsSoManySessionsAndNoMore
openscope share confirm: 0=TestBearerCallsWaitForTheWords 2 3=TestBearerCallsWaitForTheWords 4 7 9
openscope share list: 0 2 7
openscope share show: 0 2 4 7
openscope share extend: 0 2 3 4 7 8 9
openscope share revoke: 0 2 4 7 9
openscope share watch: 0=TestAWatchWithoutATerminalIsLines 2 4 7 9
openscope share approve: 0 2 3=TestWhereTheGrantSaysTwoPeopleNobodyApprovesTheirOwn 4 7
openscope share deny: 0 2 4 7
openscope lockdown on: 0 2 7
openscope lockdown off: 0 2 3=TestOnlyRootLiftsALockdown 7
openscope recipient add: 0 2 3 7
openscope recipient list: 0 2 7
openscope recipient remove: 0 2 3=TestAnotherLocalUserOwnsNothing 4 7
openscope policy check: 0 2 6
openscope policy explain: 0 2 4 7
openscope audit tail: 0 2 7
openscope audit show: 0 2 4 7
openscope audit verify: 0 2 6
openscope audit report: 0 2 4 7
openscope completion: 0 2
openscope-relay serve: 0=TestADrainLetsRunningLegsEnd 2 6
openscope-relay token new: 0 2 3 6
openscope-relay token list: 0 2 6
openscope-relay token revoke: 0 2 4 6
openscope-relay version: 0 2
openscope-relay completion: 0 2
openscope-reflect-client verbs: 0 2 3 7 9
openscope-reflect-client call: 0 2 3 4 5 7 8 9 130=TestWhoeverLeavesACallEndsTheRemoteWork
openscope-reflect-client narrow: 0 2 3 8
openscope-reflect-client request: 0=TestTheJSONOfEveryCommandIsAsItsSchemaSays 2 3
openscope-reflect-client mcp: 0=TestAnAgentOfAnotherMakeDoesAllThatMCPHas 2 3
openscope-reflect-client inspect: 0 2
openscope-reflect-client receipts: 0 2 4 6
openscope-reflect-client keygen: 0 2 6
openscope-reflect-client key: 0 2 6
openscope-reflect-client version: 0 2
openscope-reflect-client completion: 0 2
`

// scriptedLine is a command line of a script, with the code that it must end with.
var scriptedLine = regexp.MustCompile(`(?m)^exit (\d+) (openscope(?:-relay|-reflect-client)?)(?: (.*))?$`)

// valued are the flags that take the next word, where it is not behind a sign.
var valued = []string{"--passport", "--identity", "--fingerprint", "--daemon", "--relay-ca", "--known-daemons", "--state"}

// scriptedCommand is the command of a line: its first words that are no flags.
func scriptedCommand(program, line string, commands []string) string {
	var words []string
	fields := strings.Fields(line)
	for i := 0; i < len(fields); i++ {
		switch {
		case slices.Contains(valued, fields[i]):
			i++
		case !strings.HasPrefix(fields[i], "-"):
			words = append(words, fields[i])
		}
	}
	for n := min(2, len(words)); n > 0; n-- {
		if name := program + " " + strings.Join(words[:n], " "); slices.Contains(commands, name) {
			return name
		}
	}
	return ""
}

// Every command of the contract is seen to succeed and to refuse in each way that
// it has, and none is on a manual page that the contract forgets.
func TestEveryCommandIsSeenToSucceedAndToRefuse(t *testing.T) {
	var commands []string
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		name, _, _ := strings.Cut(line, ":")
		commands = append(commands, name)
	}
	scripts, err := filepath.Glob("../testdata/scripts/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range scriptedLine.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(m[3], "--help") {
				seen[scriptedCommand(m[2], m[3], commands)+": "+m[1]] = true
			}
		}
	}
	tests := namesOfTests(t)
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		name, codes, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for _, code := range strings.Fields(codes) {
			code, test, named := strings.Cut(code, "=")
			if !named && !seen[name+": "+code] {
				t.Errorf("no script has %q end with %s", name, code)
			}
			if named && !tests[test] {
				t.Errorf("%s: there is no %s", name, test)
			}
		}
	}
	for _, program := range []string{"openscope", "openscope-relay", "openscope-reflect-client"} {
		page, _, _ := run(t, nil, program, "__man")
		for _, name := range commandsOfPage(page) {
			if name = program + " " + name; !slices.Contains(commands, name) {
				t.Errorf("the contract forgets %s", name)
			}
		}
	}
}
