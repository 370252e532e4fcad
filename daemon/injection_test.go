package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/session"
	"openscope/passport"
	"openscope/wire/call"
)

// sampleRange is the verbs of all samples as they are shipped, on programs that stand in
// for those of a real machine.
type sampleRange struct {
	*hostileHalf
	canary string // a file that every attack is after
	verbs  []passport.Verb
	asked  *askedService
	runAs  string
}

// standIn says what it was called with, and how it finds itself. It reads none of
// its arguments as anything. Its state it reads itself: a shell blocks signals while
// it starts a program, which could see that.
const standIn = `#!/bin/sh
printf '%s\0' "$0" "$@"
printf '\n'
[ -e DIR/look ] || exit 0
echo "umask $(umask)"
echo "folder $(pwd)"
echo "descriptors $(ls -m /proc/self/fd)"
while read -r line; do
	case $line in Uid:*|Gid:*|Groups:*|CapInh:*|CapPrm:*|CapEff:*|CapAmb:*|NoNewPrivs:*|SigBlk:*|SigIgn:*) echo "$line" ;; esac
done < /proc/$$/status
tr '\0' '\n' < /proc/$$/environ
cat /proc/$$/limits
`

// realPrograms are run as they are where this machine has them: they only look.
var realPrograms = []string{"df", "lsblk", "ip", "ss", "getent", "ps", "free", "uptime"}

var programPath = regexp.MustCompile(`/usr/s?bin/[a-z]+`)

// newSampleRange puts all samples into force, for this account, run as another
// one where that can be; with real programs or with stand-ins only.
func newSampleRange(t *testing.T, real bool) *sampleRange {
	t.Helper()
	s := &sampleRange{hostileHalf: newHostileHalf(t), asked: newAskedService(t)}
	for _, mode := range []string{"bin", "open"} {
		if err := errors.Join(os.Mkdir(filepath.Join(s.dir, mode), 0o755), os.Chmod(s.dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever the verbs run as could write to the canary.
	s.canary = filepath.Join(s.dir, "open", "canary")
	if err := errors.Join(os.Chmod(filepath.Dir(s.canary), 0o777), os.WriteFile(s.canary, []byte("alive"), 0o666), os.Chmod(s.canary, 0o666)); err != nil {
		t.Fatal(err)
	}
	text := "http:\n  grafana:\n    url: " + s.asked.URL + "/api\n    secret_headers: {Authorization: secret}\nverbs:\n"
	if err := os.WriteFile(filepath.Join(s.dir, "secret"), []byte("Bearer sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "docker", "http", "kubernetes", "network", "postgresql", "processes", "systemd"} {
		_, verbs, found := strings.Cut(string(catalog.Samples()[name+".yaml"]), "\nverbs:\n")
		if !found {
			t.Fatalf("the sample %s has no verbs", name)
		}
		text += verbs
	}
	text = programPath.ReplaceAllStringFunc(text, func(path string) string {
		if _, err := os.Stat(path); real && err == nil && slices.Contains(realPrograms, filepath.Base(path)) {
			return path
		}
		fake := filepath.Join(s.dir, "bin", filepath.Base(path))
		if err := os.WriteFile(fake, []byte(strings.ReplaceAll(standIn, "DIR", s.dir)), 0o755); err != nil {
			t.Fatal(err)
		}
		return fake
	})
	// A sandbox has to hold the stand-in too.
	text = strings.ReplaceAll(text, "sandbox: {read: [", "sandbox: {read: ["+s.dir+", /proc, ")
	s.enforce(text)
	return s
}

// enforce takes verbs into force, for whoever runs the tests.
func (s *sampleRange) enforce(text string) {
	s.t.Helper()
	verbs, err := catalog.Parse(filepath.Join(s.dir, "verbs.yaml"), []byte(text))
	if err != nil {
		s.t.Fatal(err)
	}
	s.verbs = verbs.Schema()
	if s.runAs = s.me(); os.Geteuid() == 0 {
		if nobody, err := user.Lookup("nobody"); err == nil {
			s.runAs = nobody.Username
		}
	}
	grants := fmt.Sprintf("agents:\n  you:\n    users: [%s]\n    run_as: %s\n    allow:\n", s.me(), s.runAs)
	for _, v := range s.verbs {
		grants += "      - {verb: " + v.Name + "}\n"
	}
	p, err := policy.Parse("grants.yaml", []byte(grants))
	if err != nil {
		s.t.Fatal(err)
	}
	r := &rules{policy: p, catalog: verbs}
	if err := r.setExecutors(); err != nil {
		s.t.Fatal(err)
	}
	r.executors = map[string]executor.Executor{"exec": s.local, "ssh": r.ssh, "http": r.http}
	s.rules.Store(r)
}

// askedService stands in for a service with an HTTP API.
type askedService struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*http.Request
}

func newAskedService(t *testing.T) *askedService {
	a := new(askedService)
	a.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// last is the last request, and how many there were.
func (a *askedService) last() (r *http.Request, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		return nil, 0
	}
	return a.asked[len(a.asked)-1], len(a.asked)
}

// call makes a call from inside, and returns what it printed.
func (s *sampleRange) call(verb string, values map[string]string) (control.CallResult, string) {
	s.t.Helper()
	s.meter = session.NewMeter(s.clock, localLimits()) // the limits are not what is tested
	var params []control.Param
	for name, value := range values {
		params = append(params, control.Param{Name: name, Value: value})
	}
	var out bytes.Buffer
	r, err := s.Call(s.ctx, control.CallRequest{Agent: "you", Verb: verb, Params: params}, &out, io.Discard)
	if err != nil {
		s.t.Fatalf("%s %v: %v", verb, values, err)
	}
	return r, out.String()
}

// goodValue is one that the parameter takes.
func goodValue(p passport.Param) string {
	switch {
	case len(p.Allowed.Set) > 0:
		return p.Allowed.Set[0]
	case p.Allowed.Range != nil:
		return fmt.Sprint(p.Allowed.Range.Lo)
	case p.Type == "timestamp":
		return "2026-01-31T23:59:59Z"
	}
	return "web"
}

func goodValues(v passport.Verb) map[string]string {
	values := make(map[string]string)
	for _, p := range v.Params {
		if p.Required {
			values[p.Name] = goodValue(p)
		}
	}
	return values
}

// attacks are n strings that have broken into somebody's command line, alone and
// joined to what a verb accepts and to each other. All are after the canary.
func attacks(canary string, n int) []string {
	var seeds []string
	for _, s := range append(shellAttacks,
		"-", "--", "-x", "--help", "-oProxyCommand=touch CANARY", "-f/CANARY", "--output=CANARY", "-o CANARY", "../CANARY", "../../CANARY", "..", "/", "CANARY", "@CANARY", "@instance", "file://CANARY",
		"*", "?", "[a-z]*", "{a,b}", "~", "%n%n%n", "%s", "%2e%2e%2f", "%00", "%0a", "#", "!", "=", ",", " ", "\t", "\x00", "web\x00>CANARY", "\r\n", "\x1b]0;x\x07", "\u202e", "\u200b", "\uff1btouch CANARY",
		"\xc0\xaf", "\xc0\xae\xc0\xae\xc0\xafCANARY", "\xff", "\xed\xa0\x80", "' or 1=1; copy t to 'CANARY' --", `\! touch CANARY`, `\o CANARY`, "\r\nX-Evil: 1", "?x=1", "&a=b", "//evil", "user@evil", "http://evil",
		"1e9", "0x10", "-1", "+1", "01", "9999999999", "1", "7", "42", "2000", "true", "TRUE", "5m", "60s", "90s", "1h1m", "2026-01-31T23:59:59Z", "2026-01-31", "web", "api", "web-1", "x", "info", "all",
		strings.Repeat("A", 4096), strings.Repeat("-", 4096), strings.Repeat("\U0001f4a9", 1024),
	) {
		seeds = append(seeds, strings.ReplaceAll(s, "CANARY", canary))
	}
	r, all := rand.New(rand.NewPCG(5, 3)), seeds
	for len(all) < n {
		s, other := seeds[r.IntN(len(seeds))], seeds[r.IntN(len(seeds))]
		all = append(all, []string{"web" + s, s + "web", s + other, "100" + s, other + s + other}[r.IntN(5)])
	}
	return all[:n]
}

// shellAttacks are those that a shell falls for.
var shellAttacks = []string{
	";echo dead>CANARY", "|tee CANARY", "&echo dead>CANARY&", "&&echo dead>CANARY", "||echo dead>CANARY", "$(echo dead>CANARY)", "`echo dead>CANARY`", "\necho dead>CANARY\n", ">CANARY", ">>CANARY;echo dead>CANARY",
	"';echo dead>CANARY;'", "\";echo dead>CANARY;\"", "${IFS};echo${IFS}dead>CANARY",
}

// untouched reports whether the canary lives, and brings it back to life.
func (s *sampleRange) untouched() bool {
	s.t.Helper()
	text, err := os.ReadFile(s.canary)
	names, globErr := filepath.Glob(filepath.Join(filepath.Dir(s.canary), "*"))
	alive := err == nil && globErr == nil && string(text) == "alive" && len(names) == 1
	if err := os.WriteFile(s.canary, []byte("alive"), 0o666); err != nil {
		s.t.Fatal(err)
	}
	return alive
}

// TestNoInjectionDoesMoreThanItsSampleSays is E2: a thousand attacks on each
// parameter of each sample. What the schema lets through is executed, and is one
// word in its place; the canary lives. A shell would have killed it.
func TestNoInjectionDoesMoreThanItsSampleSays(t *testing.T) {
	t.Parallel()
	for name, real := range map[string]bool{"real programs": true, "stand-ins": false} {
		t.Run(name, func(t *testing.T) {
			s := newSampleRange(t, real)
			if !real {
				s.shellFalls()
			}
			tried, executed := 0, 0
			for _, v := range s.verbs {
				for _, p := range v.Params {
					n, ran := s.attack(v, p, real)
					tried, executed = tried+n, executed+ran
				}
			}
			if !s.untouched() {
				t.Error("the canary is dead")
			}
			if tried < 20_000 || executed < 50 {
				t.Errorf("%d attacks tried, %d let through: the test shows little", tried, executed)
			}
			t.Logf("%d attacks tried, %d let through and executed", tried, executed)
		})
	}
}

// shellFalls shows that the attacks are worth something.
func (s *sampleRange) shellFalls() {
	s.t.Helper()
	for _, attack := range shellAttacks {
		attack = strings.ReplaceAll(attack, "CANARY", s.canary)
		fell := false
		for _, naive := range []string{"true x" + attack, "false x" + attack, "true 'x" + attack + "'", `true "x` + attack + `"`} {
			// Its output ends with the last of what it has put into the background.
			_, _ = exec.Command("/bin/sh", "-c", naive).CombinedOutput()
			fell = !s.untouched() || fell
		}
		if !fell {
			s.t.Errorf("no shell falls for %q", attack)
		}
	}
}

// attack tries every attack on one parameter, and executes some of what is let
// through; the first refusals go through the chokepoint too.
func (s *sampleRange) attack(v passport.Verb, p passport.Param, real bool) (tried, executed int) {
	s.t.Helper()
	verb, _ := s.rules.Load().catalog.Verb(v.Name)
	seen, refused := make(map[string]bool), 0
	for _, attack := range attacks(s.canary, 1_000) {
		tried++
		values := goodValues(v)
		values[p.Name] = attack
		var params []catalog.Param
		for name, value := range values {
			params = append(params, catalog.Param{Name: name, Value: value})
		}
		complete, err := verb.Resolve(params)
		if err != nil {
			if refused++; refused <= 2 {
				if r, _ := s.call(v.Name, values); r.Cause != call.Denied.String() {
					s.t.Errorf("%s %s=%q ends as %s", v.Name, p.Name, attack, r.Cause)
				}
			}
			continue
		}
		if seen[attack] || executed == executedAttacks {
			continue
		}
		seen[attack], executed = true, executed+1
		s.execute(verb, v, p, complete, values, real)
	}
	return tried, executed
}

// execute makes the call, and holds what arrives to the template with the values
// in their places.
func (s *sampleRange) execute(verb *catalog.Verb, v passport.Verb, p passport.Param, complete, values map[string]string, real bool) {
	s.t.Helper()
	_, before := s.asked.last()
	r, out := s.call(v.Name, values)
	if !s.untouched() {
		s.t.Errorf("%s %s=%q killed the canary", v.Name, p.Name, values[p.Name])
	}
	if r.Cause != call.Exited.String() {
		s.t.Errorf("%s %s=%q ends as %s: %s", v.Name, p.Name, values[p.Name], r.Cause, r.Reason)
		return
	}
	if request := verb.Request(complete); request != nil {
		got, n := s.asked.last()
		segments := strings.Split(strings.TrimPrefix(got.URL.EscapedPath(), "/"), "/")
		if n != before+1 || got.Host != strings.TrimPrefix(s.asked.URL, "http://") || len(segments) != 1+len(request.Segments) || segments[0] != "api" ||
			len(got.URL.Query()) > len(request.Query) || got.Header.Get("X-Evil") != "" || got.Header.Get("Authorization") != "Bearer sesame" {
			s.t.Errorf("%s %s=%q asks %s %s%s", v.Name, p.Name, values[p.Name], got.Method, got.Host, got.URL)
		}
		return
	}
	argv := verb.Argv(complete)
	if real && !strings.HasPrefix(argv[0], s.dir) {
		return // it does not say what it was called with
	}
	got, _, _ := strings.Cut(out, "\x00\n")
	if !slices.Equal(strings.Split(got, "\x00"), argv) {
		s.t.Errorf("%s %s=%q comes to %q, and %q arrives", v.Name, p.Name, values[p.Name], argv, strings.Split(got, "\x00"))
	}
}
