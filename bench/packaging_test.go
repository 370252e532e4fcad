package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// units are the service files, what they start, and how exposed systemd may
// find them: 10 is a service that nothing holds.
var units = []struct {
	path, program string
	atMost        string // tenths
}{
	{"../daemon/packaging/openscope.service", "openscope", "34"},
	{"../relay/packaging/openscope-relay.service", "openscope-relay", "15"},
}

func needsSystemd(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("systemd-analyze", "--version").CombinedOutput(); err != nil {
		t.Skipf("there is no systemd-analyze here: %v %s", err, out)
	}
}

func TestSystemdUnderstandsTheUnits(t *testing.T) {
	needsSystemd(t)
	for _, u := range units {
		text, err := os.ReadFile(u.path)
		if err != nil {
			t.Fatal(err)
		}
		installed := strings.ReplaceAll(string(text), "/usr/bin/"+u.program, filepath.Join(programs, u.program))
		if installed == string(text) {
			t.Fatalf("%s does not start /usr/bin/%s", u.path, u.program)
		}
		copied := filepath.Join(t.TempDir(), filepath.Base(u.path))
		if err := os.WriteFile(copied, []byte(installed), 0o644); err != nil {
			t.Fatal(err)
		}
		// Whatever it says is something that it does not understand.
		cmd := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copied)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", u.path, err, out)
		}
	}
}

func TestTheServicesAreHeldTightlyAndEachExceptionIsExplained(t *testing.T) {
	needsSystemd(t)
	for _, u := range units {
		if out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold="+u.atMost, u.path).CombinedOutput(); err != nil {
			t.Errorf("%s is more exposed than %s tenths: %v\n%s", u.path, u.atMost, err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--json=short", u.path).Output()
		var findings []struct {
			Set      *bool   `json:"set"`
			Name     string  `json:"name"`
			Exposure *string `json:"exposure"`
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &findings); err != nil || len(findings) < 50 {
			t.Fatalf("%d findings: %v", len(findings), err)
		}
		text, err := os.ReadFile(u.path)
		if err != nil {
			t.Fatal(err)
		}
		comments := strings.Join(regexp.MustCompile(`(?m)^#.*$`).FindAllString(string(text), -1), "\n")
		for _, f := range findings {
			if f.Exposure == nil || f.Set == nil || *f.Set {
				continue
			}
			if !explained(comments, f.Name) {
				t.Errorf("%s: %s (%s) is an exception that no comment explains", u.path, f.Name, *f.Exposure)
			}
		}
	}
}

// explained reports whether a comment names the setting of a finding, or for
// one of many values, the value.
func explained(comments, finding string) bool {
	setting, value, _ := strings.Cut(finding, "=")
	if value = strings.TrimPrefix(value, "~"); value == "" || strings.HasPrefix(value, "/") {
		return strings.Contains(comments, setting)
	}
	for word := range strings.FieldsFuncSeq(strings.TrimPrefix(value, "CAP_"), func(r rune) bool { return strings.ContainsRune("()|*", r) }) {
		word = strings.TrimSuffix(strings.TrimPrefix(word, "CAP_"), "_")
		// INET is spoken of as IP.
		if strings.Contains(comments, word) || word == "INET" && strings.Contains(comments, "over IP") {
			return true
		}
	}
	return false
}

// What the packages carry for the rest of systemd is read by its own programs.
func TestSystemdUnderstandsUsersAndFolders(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make users and folders in a tree of its own")
	}
	for _, program := range []string{"systemd-sysusers", "systemd-tmpfiles"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("there is no systemd here: ", err)
		}
	}
	root := t.TempDir()
	for dir, files := range map[string][]string{
		"usr/lib/sysusers.d": {"../relay/packaging/openscope-relay.sysusers", "../daemon/packaging/openscope.sysusers"},
		"usr/lib/tmpfiles.d": {"../relay/packaging/openscope-relay.tmpfiles", "../daemon/packaging/openscope.tmpfiles"},
		"etc":                nil,
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)) + ".conf"
			if err := os.WriteFile(filepath.Join(root, dir, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, words := range [][]string{
		{"systemd-sysusers", "--root=" + root, "openscope-relay.conf", "openscope.conf"},
		{"systemd-tmpfiles", "--root=" + root, "--create", "openscope-relay.conf", "openscope.conf"},
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
	}
	for dir, mode := range map[string]os.FileMode{"etc/openscope": 0o755, "var/lib/openscope": 0o700, "var/lib/openscope-relay": 0o700} {
		info, err := os.Stat(filepath.Join(root, dir))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, want mode %o", dir, err, mode)
		}
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !regexp.MustCompile(`(?m)^openscope-relay:.*:/var/lib/openscope-relay:.*nologin$`).Match(users) {
		t.Errorf("the relay's user: %v\n%s", err, users)
	}
	if !regexp.MustCompile(`(?m)^openscope-net:.*:/:.*nologin$`).Match(users) {
		t.Errorf("the net half's user:\n%s", users)
	}
}
