package catalog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"openscope/passport"
)

// sampleVerbs are the verbs of every sample and of the starter.
func sampleVerbs(t testing.TB) map[string]*Verb {
	t.Helper()
	verbs := make(map[string]*Verb)
	files := Samples()
	files["starter.yaml"] = Starter
	for name, data := range files {
		c, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range c.Names() {
			verbs[key], _ = c.Verb(key)
		}
	}
	return verbs
}

func TestThereIsASampleForEveryCommonCase(t *testing.T) {
	files := Samples()
	for _, name := range []string{"systemd", "kubernetes", "postgresql", "docker", "http", "disk", "network", "processes"} {
		if len(files[name+".yaml"]) == 0 {
			t.Errorf("there is none for %s", name)
		}
	}
	// What prints files, logs of others, or answers queries is raw, and cannot
	// leave without the grant's saying so in words.
	for _, name := range []string{"k8s.logs", "k8s.logs_from", "k8s.describe_pod", "pg.order", "docker.logs", "grafana.dashboard"} {
		if v := sampleVerbs(t)[name]; v == nil || v.Class != passport.Raw {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// injections are n strings that have broken into somebody's command line, alone
// and joined to what a verb accepts.
func injections(n int) []string {
	seeds := []string{
		"-", "--", "-x", "--help", "-oProxyCommand=touch canary", "-rf", "--output=canary", ";touch canary", "|touch canary", "&touch canary", "&&touch canary", "||touch canary",
		"$(touch canary)", "`touch canary`", "${IFS}touch", "$HOME", "\n", "\r\n", "\ntouch canary\n", "\x00", "\x00touch", "../", "../../etc/passwd", "/etc/shadow", "..", ".", "/", "//",
		"*", "?", "[a-z]", "{a,b}", "~", "~root", "%n", "%s%s%s", "%2e%2e%2f", "%00", "@instance", "@/etc/passwd", "<canary", ">canary", ">>canary", "2>&1", "'", "\"", "\\", "' or 1=1 --",
		"'; drop table orders; --", "\\! touch canary", "\\copy", "#", "!", "!!", "\x1b[2J", "\u202e", "\u200b", "\u2028", "é", "\xc0\xaf", "\xc0\xae\xc0\xae", "\xff\xfe", "\xed\xa0\x80", "=", ",", "a,b", " ", "\t",
		"http://evil", "//evil.example", "user@evil", "?x=1", "#frag", "&a=b", "%0d%0aX-Evil: 1", "\r\nX-Evil: 1", "1e9", "0x10", "-1", "+1", "01", "99999999999999999999", "NaN", "true ", "TRUE",
		strings.Repeat("A", 4096), strings.Repeat("-", 4096), strings.Repeat("\xf0\x9f\x92\xa9", 1024),
	}
	r := rand.New(rand.NewPCG(4, 2))
	all := slices.Clone(seeds)
	for len(all) < n {
		s := seeds[r.IntN(len(seeds))]
		switch r.IntN(4) {
		case 0:
			s = "web" + s
		case 1:
			s += "web"
		case 2:
			s += seeds[r.IntN(len(seeds))]
		case 3:
			s = "100" + s
		}
		all = append(all, s)
	}
	return all
}

// TestEverySampleRefusesEveryInjection is E2 as far as the schema goes. What it
// lets through must be one word, in its place, that no option parser, shell or
// path could take for more.
func TestEverySampleRefusesEveryInjection(t *testing.T) {
	passed := 0
	for name, v := range sampleVerbs(t) {
		for _, p := range v.params {
			for _, attack := range injections(1_000) {
				params := goodParams(v, p.name)
				values, err := v.Resolve(append(params, Param{p.name, attack}))
				if err != nil {
					continue
				}
				passed++
				if harmless := safeText.MatchString(attack) || name == "grafana.annotate"; !harmless {
					t.Errorf("%s takes %s=%q: %q", name, p.name, attack, v.Argv(values))
				}
			}
		}
	}
	t.Logf("%d values were harmless and let through", passed)
}

var safeText = conservative

// goodParams are values for every required parameter but one.
func goodParams(v *Verb, but string) []Param {
	var all []Param
	for _, p := range v.params {
		if p.name == but || !p.required {
			continue
		}
		switch {
		case p.enum != nil:
			all = append(all, Param{p.name, p.enum[0]})
		case p.kind == typeInteger:
			all = append(all, Param{p.name, fmt.Sprint(p.lo)})
		case p.kind == typeTimestamp:
			all = append(all, Param{p.name, "2026-01-31T23:59:59Z"})
		default:
			all = append(all, Param{p.name, "web"})
		}
	}
	return all
}

func TestEverySampleCanBeCalled(t *testing.T) {
	for name, v := range sampleVerbs(t) {
		values, err := v.Resolve(goodParams(v, ""))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if argv, r := v.Argv(values), v.Request(values); (len(argv) == 0) == (r == nil) || strings.ContainsAny(fmt.Sprint(argv, r), "{") && r == nil {
			t.Errorf("%s comes to %q, %+v", name, argv, r)
		}
	}
}

func TestARequestIsBuiltFromItsFile(t *testing.T) {
	v := sampleVerbs(t)["grafana.alerts"]
	values, err := v.Resolve([]Param{{"limit", "7"}})
	if err != nil {
		t.Fatal(err)
	}
	r := v.Request(values)
	if r.Method != "GET" || !slices.Equal(r.Segments, []string{"alerts"}) || !slices.Equal(r.Query, []Field{{"limit", "7", true}, {"state", "alerting", false}}) || r.Body != nil {
		t.Errorf("%+v", r)
	}
}
