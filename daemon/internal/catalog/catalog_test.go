package catalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/passport"
)

const logsFile = `ssh:
  web-1: {host: web-1.internal, user: "{issuer}", key_file: keys/id, host_key: ssh-ed25519 AAAA}
verbs:
  ssh.tail_logs:
    summary: Follow a service's journal
    class: read
    executor: ssh
    target: web-1
    argv: [journalctl, -n, "{lines}", -u, "{service}", "{follow}", "--since={since}", "--unit={unit}", "{order}", "--until={until}"]
    params:
      service: {type: string, enum: [web, api], required: true}
      lines: {type: integer, min: 1, max: 2000, default: 100}
      follow: {type: flag, argv: [-f, --no-pager], default: false}
      since: {type: duration, default: 5m}
      unit: {type: string, default: none}
      order: {type: enum, enum: [oldest first, newest first], default: oldest first}
      until: {type: timestamp, default: "2026-01-31T23:59:59Z"}
    timeout: 10m
    max_output: 4MiB
`

func parse(t testing.TB, text string) *Catalog {
	t.Helper()
	c, err := Parse("/etc/openscope/verbs.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func logs(t testing.TB) *Verb {
	t.Helper()
	v, ok := parse(t, logsFile).Verb("ssh.tail_logs")
	if !ok {
		t.Fatal("the verb is not there")
	}
	return v
}

func TestAVerbIsWhatItsFileSays(t *testing.T) {
	c := parse(t, logsFile)
	v := logs(t)
	if v.Class != passport.Read || v.Executor != "ssh" || v.Target != "web-1" || v.Timeout != 10*time.Minute || v.MaxOutput != 4<<20 {
		t.Errorf("%+v", v)
	}
	target := c.SSHTargets()["web-1"]
	if target.Port != 22 || target.KeyFile != "/etc/openscope/keys/id" || target.User != "{issuer}" {
		t.Errorf("%+v", target)
	}
	if got := c.Names(); !slices.Equal(got, []string{"ssh.tail_logs"}) {
		t.Errorf("%v", got)
	}
	schema := c.Schema()[0]
	var names []string
	for _, p := range schema.Params {
		names = append(names, p.Name+" "+p.Allowed.String())
	}
	if want := []string{"follow false|true", "lines 1..2000", "order newest first|oldest first", "service api|web", "since any", "unit any", "until any"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

func TestTheStarterIsGood(t *testing.T) {
	c := parse(t, string(Starter))
	for _, name := range c.Names() {
		v, _ := c.Verb(name)
		if v.Class != passport.Read || v.Executor != "exec" {
			t.Errorf("%s is %s by %s", name, v.Class, v.Executor)
		}
		if _, err := v.Resolve(nil); err != nil {
			t.Errorf("%s without parameters: %v", name, err)
		}
	}
	// What is commented out is good too, once it is not.
	_, text, _ := strings.Cut(string(Starter), "# ssh:\n")
	ssh, verbs, _ := strings.Cut(text, "verbs:\n")
	ssh = "ssh:\n" + strings.ReplaceAll("\n"+ssh, "\n# ", "\n")
	verbs = "verbs:\n" + strings.ReplaceAll("\n"+verbs, "\n#", "\n")
	if c, err := Parse("verbs.yaml", []byte(ssh+verbs)); err != nil || len(c.Names()) != 5 {
		t.Errorf("uncommented: %v", err)
	}
}

func TestDefaultsAreFilledInAndArgvIsWordForWord(t *testing.T) {
	for _, c := range []struct {
		params []Param
		argv   []string
	}{
		{[]Param{{"service", "web"}}, []string{"journalctl", "-n", "100", "-u", "web", "--since=5m", "--unit=none", "oldest first", "--until=2026-01-31T23:59:59Z"}},
		{[]Param{{"service", "api"}, {"follow", "true"}, {"lines", "1"}, {"since", "90s"}, {"unit", "a.b/c:d@e+f-g_h"}, {"order", "newest first"}, {"until", "2024-02-29T00:00:00Z"}},
			[]string{"journalctl", "-n", "1", "-u", "api", "-f", "--no-pager", "--since=90s", "--unit=a.b/c:d@e+f-g_h", "newest first", "--until=2024-02-29T00:00:00Z"}},
		{[]Param{{"service", "web"}, {"follow", "false"}}, []string{"journalctl", "-n", "100", "-u", "web", "--since=5m", "--unit=none", "oldest first", "--until=2026-01-31T23:59:59Z"}},
	} {
		values, err := logs(t).Resolve(c.params)
		if err != nil {
			t.Fatal(err)
		}
		if got := logs(t).Argv(values); !slices.Equal(got, c.argv) {
			t.Errorf("%v: %q", c.params, got)
		}
	}
}

func TestParametersThatDoNotFitAreRefused(t *testing.T) {
	good := map[string]string{"service": "web", "lines": "10", "follow": "true", "since": "5m", "unit": "x"}
	bad := map[string][]string{
		"service": {"", "db", "Web", "web ", " web", "web\x00", "wеb", "web|api"},
		"lines":   {"", "0", "2001", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "0x10", "٣", "99999999999999999999", "1,000"},
		"follow":  {"", "yes", "TRUE", "1", "-f"},
		"since":   {"", "5", "1m0s", "60s", "3600s", "60m", "0m", "-5m", "+5m", "05m", "1.5h", "5M", "1h5m", "1000ms", "1d"},
		"order":   {"", "oldest", "oldest first ", "Oldest first", "oldest first|newest first", "first"},
		"until": {
			"", "now", "2026-01-31", "2026-01-31T23:59:59", "2026-01-31T23:59:59+00:00", "2026-01-31T23:59:59.0Z", "2026-01-31T23:59:59.5Z", "2026-01-31t23:59:59z",
			"2026-01-31 23:59:59Z", "2026-02-29T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T23:59:60Z", "26-01-31T23:59:59Z", "02026-01-31T23:59:59Z", "-026-01-31T23:59:59Z", " 2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z ",
		},
		"unit": {
			"", "-n", "--", "-oProxyCommand=id", ";", "a;b", "a|b", "a&b", "$(id)", "`id`", "$HOME", "a b", "a\nb", "a\tb", "a\x00b", "\x1b[2J", "../x", "a/../b", "..",
			"*", "a*", "?", "[a]", "{a,b}", "~", "%n", "!x", "#", "'", `"`, `\`, "(x)", "<x", ">x", "é", "\xff", "\xc0\xaf", "\u202ex", strings.Repeat("x", 257), strings.Repeat("x", 1_000_000),
		},
	}
	for name, values := range bad {
		for _, value := range values {
			call := maps.Clone(good)
			call[name] = value
			var params []Param
			for n, v := range call {
				params = append(params, Param{n, v})
			}
			got, err := logs(t).Resolve(params)
			refused, ok := errors.AsType[*ParamError](err)
			if !ok || refused.Param != name || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s=%.40q: %v, %v", name, value, got, err)
			}
		}
	}
	for name, params := range map[string][]Param{
		"an unknown one":        {{"service", "web"}, {"more", "x"}},
		"another case":          {{"Service", "web"}},
		"one given twice":       {{"service", "web"}, {"service", "web"}},
		"a missing one":         {{"lines", "5"}},
		"an unprintable name":   {{"service", "web"}, {"\x1b[2J", "x"}},
		"an empty name":         {{"service", "web"}, {"", "x"}},
		"a placeholder's value": {{"service", "{lines}"}},
	} {
		if got, err := logs(t).Resolve(params); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestAPatternIsAnchoredWhateverItSays(t *testing.T) {
	v := func(pattern string) (*Verb, error) {
		c, err := Parse("verbs.yaml", fmt.Appendf(nil, "verbs:\n  app.a: {class: read, executor: exec, argv: [x, 'v={p}'], params: {p: {type: string, pattern: %q, required: true}}}\n", pattern))
		if err != nil {
			return nil, err
		}
		verb, _ := c.Verb("app.a")
		return verb, nil
	}
	for _, pattern := range []string{"a", "^a", "a$", "^(a$", `^[$`, `^a)|(?:b$`, `^a\$`} {
		if _, err := v(pattern); err == nil {
			t.Errorf("the pattern %s passes", pattern)
		}
	}
	verb, err := v("^a|b$")
	if err != nil {
		t.Fatal(err)
	}
	for value, ok := range map[string]bool{"a": true, "b": true, "ax": false, "xb": false, "a\n": false, "": false} {
		if _, err := verb.Resolve([]Param{{"p", value}}); (err == nil) != ok {
			t.Errorf("^a|b$ and %q: %v", value, err)
		}
	}
}

// verbFileWith is a verb with one thing changed.
func verbFileWith(line string) string {
	lines := []string{"class: read", "executor: exec", `argv: [x, "{p}"]`, "params: {p: {type: string, required: true}}"}
	key, _, _ := strings.Cut(line, ":")
	for i, l := range lines {
		if strings.HasPrefix(l, key+":") {
			lines[i] = line
			line = ""
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return "verbs:\n  app.a:\n    " + strings.Join(lines, "\n    ") + "\n"
}

func TestMalformedVerbsNameTheirPlace(t *testing.T) {
	parse(t, verbFileWith("summary: fine"))
	for _, line := range []string{
		"colour: blue", "class: write", "class: ''", "executor: http", "executor: ssh", "target: web-1", "timeout: 0s1ms", "timeout: 31m", "timeout: soon",
		"max_output: lots", "max_output: 0", "summary: \"a\\e[2J\"", "summary: " + strings.Repeat("x", 201), "argv: []", "argv: ['{p}']", "argv: [x]", "argv: [x, '{q}']",
		"argv: [x, '{p}{p}']", "argv: ['', '{p}']", `argv: [x, "\0{p}"]`, "argv: [sh, -c, '{p}']", "argv: [/bin/bash, '{p}']", "argv: [python3, '{p}']", "argv: [env, '{p}']", "argv: [sudo, '{p}']",
		"params: {p: {type: string}}", "params: {p: {type: text, required: true}}", "params: {P: {type: string, required: true}}",
		"params: {p: {type: string, required: true, default: x}}", "params: {p: {type: string, default: '-x'}}", "params: {p: {type: string, enum: [a], default: b}}",
		"params: {p: {type: string, enum: ['-x'], required: true}}", "params: {p: {type: string, pattern: '^.*$', required: true}}",
		"params: {p: {type: integer, required: true}}", "params: {p: {type: integer, min: 5, max: 1, required: true}}", "params: {p: {type: integer, min: -5, max: 1, required: true}}",
		"params: {p: {type: string, min: 1, required: true}}", "params: {p: {type: flag, default: false}}", "params: {p: {type: string, argv: [x], required: true}}",
		"params: {p: {type: string, max_length: 5000, required: true}}", "params: {p: {type: string, required: true, colour: blue}}",
		"params: {p: {type: string, required: true}, p: {type: string, required: true}}",
		"params: {p: {type: string, required: true}, q: {type: string, required: true}}", "params: {p: {type: integer, min: 1, max: 5, enum: [1], required: true}}",
		"params: {p: {type: duration, default: 60s}}", "params: {p: {type: enum, required: true}}", "params: {p: {type: enum, enum: [], required: true}}",
		"params: {p: {type: enum, enum: [a], pattern: '^a$', required: true}}", "params: {p: {type: enum, enum: ['-x'], required: true}}", "params: {p: {type: timestamp, default: now}}",
		"params: {p: {type: timestamp, enum: [a], required: true}}",
	} {
		_, err := Parse("verbs.yaml", []byte(verbFileWith(line)))
		if err == nil || !strings.HasPrefix(err.Error(), "verbs.yaml:") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, argv := range []string{
		`[/usr/bin/psql, -c, "{p}"]`, `[/usr/bin/psql, "--command={p}"]`, `[/usr/bin/docker, exec, web, sh, -c, "{p}"]`,
		`[/usr/bin/kubectl, exec, pod, --, /bin/bash, "{p}"]`, `[/usr/bin/ionice, busybox, sh, "{p}"]`,
	} {
		text := "verbs:\n  app.verb: {class: read, executor: exec, argv: " + argv + ", params: {p: {type: string, required: true}}}\n"
		if _, err := Parse("verbs.yaml", []byte(text)); err == nil {
			t.Errorf("%s: %v", argv, err)
		}
	}
	for _, text := range []string{
		"verbs:\n  App.a: {class: read, executor: exec, argv: [x]}\n", "verbs:\n  a: {class: read, executor: exec, argv: [x]}\n",
		"verbs:\n  app.a: {class: read, executor: exec, argv: [x]}\n  app.a: {class: read, executor: exec, argv: [y]}\n",
		"verbs: &x {}\n", "verbs: {}\n---\nverbs: {}\n", "hello: world\n", "verbs: [\n", "- x\n",
		"ssh:\n  w: {host: h, user: u, key_file: k}\n", "ssh:\n  w: {host: h, user: u, host_key: k}\n", "ssh:\n  W: {host: h, user: u, key_file: k, host_key: k}\n",
		"ssh:\n  w: {host: h, user: u, key_file: k, host_key: k, port: 70000}\n", "ssh:\n  w: {host: h, user: u, key_file: k, host_key: k, password: x}\n",
	} {
		if _, err := Parse("verbs.yaml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "verbs.yaml") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if c, err := Parse("verbs.yaml", nil); err != nil || len(c.Names()) != 0 {
		t.Errorf("an empty file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(logsFile)
	f.Add(string(Starter))
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzedYAML(t, text, func(s string) { _, _ = Parse("verbs.yaml", []byte(s)) })
		c, err := Parse("verbs.yaml", []byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of several lines: %q", err)
			}
			return
		}
		for _, name := range c.Names() {
			v, _ := c.Verb(name)
			values, err := v.Resolve(nil)
			if err == nil && v.Argv(values)[0] == "" {
				t.Fatalf("%s has no command: %q", name, text)
			}
		}
	})
}
