package bench

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fromEnvironment are the names that the programs read from the environment: none
// widens, replaces or confirms anything.
var fromEnvironment = []string{"SOCKET", "CONFIG", "PASSPORT", "IDENTITY", "FINGERPRINT", "KNOWN_DAEMONS", "RELAY_CA", "LISTEN", "JSON"}

var environmentName = regexp.MustCompile(`"OPENSCOPE_([A-Z_]*)`)

func TestTheProgramsReadNothingElseFromTheEnvironment(t *testing.T) {
	seen := make(map[string]bool)
	for _, dir := range []string{"client", "daemon", "relay", "wire", "passport"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range environmentName.FindAllStringSubmatch(string(text), -1) {
				seen[m[1]] = true
				if !slices.Contains(fromEnvironment, m[1]) {
					t.Errorf("%s reads OPENSCOPE_%s", path, m[1])
				}
			}
			if strings.Contains(string(text), "WithEnvVar") {
				t.Errorf("%s takes flags from the environment", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range fromEnvironment {
		if !seen[name] {
			t.Errorf("nothing reads OPENSCOPE_%s: the search finds nothing", name)
		}
	}
}

// TestTheEnvironmentOverridesNoDecision is P4: a variable for each flag and key
// that decides something changes nothing.
func TestTheEnvironmentOverridesNoDecision(t *testing.T) {
	s := newSite(t)
	evil := s.path("evil.yaml")
	s.write("evil.yaml", "agents: {}\n", 0o644)
	env := s.env()
	for _, name := range []string{
		"AGENT", "TO", "TTL", "VERB", "BEARER", "NO_CONFIRM", "APPROVE", "MAX_CALLS", "MAX_OUTPUT", "FORCE", "REPLACE", "GRANTS", "VERBS", "RECIPIENTS", "STATE_DIR", "MAX_TTL",
		"TOKEN", "TOKEN_FILE", "RELAY", "RELAY_PIN", "ALL", "YES", "TRUST", "INSECURE", "DAEMON", "DRY_RUN", "REASON", "STATE", "SELF_SIGNED",
	} {
		value := "1"
		switch name {
		case "AGENT":
			value = "you"
		case "TO":
			value = "vendor-b"
		case "TTL", "MAX_TTL":
			value = "29m"
		case "VERB", "APPROVE":
			value = "test.echo"
		case "GRANTS", "VERBS", "RECIPIENTS":
			value = evil
		}
		env = append(env, "OPENSCOPE_"+name+"="+value)
	}
	for _, c := range []struct {
		code int
		args []string
	}{
		{2, []string{"verbs"}}, // no agent
		{2, []string{"share", "open", "--agent", "you", "--verb", "test.echo"}},               // no recipient
		{2, []string{"share", "open", "--agent", "you", "--to", "vendor-b"}},                  // no verb
		{3, []string{"share", "open", "--agent", "you", "--to", "vendor-b", "--verb", "x.y"}}, // outside the grant
		{3, []string{"share", "open", "--agent", "you", "--bearer", "--no-confirm", "--verb", "test.echo"}},
		{2, []string{"share", "revoke"}},              // not all of them
		{6, []string{"init", "--dir", s.path("etc")}}, // nothing is overwritten
		{0, []string{"verbs", "--agent", "you"}},
		{0, []string{"policy", "check"}},
	} {
		if _, stderr, code := run(t, env, "openscope", c.args...); code != c.code {
			t.Errorf("openscope %s: exit %d, want %d: %s", strings.Join(c.args, " "), code, c.code, stderr)
		}
	}
	stdout, _, _ := run(t, env, "openscope", "share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--verb", "test.echo", "--dry-run")
	if !strings.Contains(stdout, "test.echo") || strings.Contains(stdout, `"approve"`) {
		t.Errorf("a dry run says %s", stdout)
	}
}
