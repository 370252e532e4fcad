package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openscope/daemon/internal/yamlfile"
)

// aVerb is a verbs file with one line of a verb replaced or added; the line is
// the fourth.
func aVerb(line string) string {
	return "verbs:\n  app.verb:\n    class: read\n    " + line + "\n"
}

// TestEveryMistakeIsExplained holds each kind of error to the contract: file and
// line, one line of text, and how to mend it.
func TestEveryMistakeIsExplained(t *testing.T) {
	const exec = "executor: exec, class: read, "
	verb := func(body string) string { return "verbs:\n  app.verb: {" + exec + body + "}\n" }
	grant := func(body string) string { return "agents:\n  you: {" + body + "}\n" }
	request := func(body string) string {
		return "http:\n  api: {url: 'https://h/'}\nverbs:\n  app.verb: {class: read, executor: http, target: api, " + body + "}\n"
	}
	for text, want := range map[string][2]string{ // the place, and a part of the fix
		"verbs:\n  App: {" + exec + "argv: [x]}\n":                                                 {":2: ", "rename it"},
		"verbs:\n  app.verb: {executor: exec, argv: [x]}\n":                                        {":2: ", "add class"},
		"verbs:\n  app.verb: {class: read, argv: [x]}\n":                                           {":2: ", "executor: exec"},
		"verbs:\n  app.verb: {class: read, executor: ssh, target: w, argv: [x]}\n":                 {":2: ", "ssh section"},
		"verbs:\n  app.verb: {class: read, executor: http, target: w}\n":                           {":2: ", "http section"},
		verb("target: w, argv: [x]"):                                                               {":2: ", "drop target"},
		verb("argv: []"):                                                                           {":2: ", "as a list"},
		verb("argv: [x], timeout: 1h"):                                                             {":2: ", "like 90s"},
		verb("argv: [x], summary: 'é'"):                                                            {":2: ", "ASCII"},
		verb("argv: [x], colour: blue"):                                                            {":2: ", "openscope init"},
		verb("argv: [x], max_output: 4MB"):                                                         {":2: ", "openscope init"},
		verb("argv: [x], request: {method: GET}"):                                                  {":2: ", "executor: http"},
		verb("argv: [x], params: {p: {type: string, required: true}}"):                             {":2: ", "write {p}"},
		verb("argv: [x, '{p}'], params: {p: {type: string}}"):                                      {":2: ", "one of the two"},
		verb("argv: [x, '{q}']"):                                                                   {":2: ", "declare it"},
		verb("argv: ['{p}'], params: {p: {type: string, required: true}}"):                         {":2: ", "each command"},
		verb("argv: [x, '{p}{p}'], params: {p: {type: string, required: true}}"):                   {":2: ", "word of its own"},
		verb("argv: [x, 'a{p}'], params: {p: {type: flag, argv: [-f]}}"):                           {":2: ", "word of its own"},
		verb("argv: [x, '{p}'], params: {p: {type: integer, min: -1, max: 1, required: true}}"):    {":2: ", "--name={p}"},
		verb("argv: [sh, -c, '{p}'], params: {p: {type: string, required: true}}"):                 {":2: ", "script"},
		verb("argv: [docker, exec, w, sh, '{p}'], params: {p: {type: string, required: true}}"):    {":2: ", "script"},
		verb("argv: [psql, -c, '{p}'], params: {p: {type: string, required: true}}"):               {":2: ", "enum or integer"},
		verb("argv: [x, '{p}'], params: {p: {type: text, required: true}}"):                        {":2: ", "openscope init"},
		verb("argv: [x], sandbox: {}"):                                                             {":2: ", "libraries"},
		verb("argv: [x], sandbox: {read: [usr]}"):                                                  {":2: ", "whole path"},
		verb("argv: [x], sandbox: {read: [/usr], network: some}"):                                  {":2: ", "network: none"},
		aVerb("argv: &a [x]"):                                                                      {":4: ", "in both places"},
		"verbs: {}\n---\nverbs: {}\n":                                                              {": more than one", "remove the line"},
		"verbs:\n  a.b: {class: x}\n  a.c: {class: x}\n  a.d: {class: x}\n":                        {"(and 5 more", "add class"},
		request("argv: [x]"):                                                                       {":4: ", "request: {"},
		request("request: {method: get}"):                                                          {":4: ", "use one of"},
		request("request: {method: POST}"):                                                         {":4: ", "class change"},
		request("request: {method: GET, body: {a: b}}"):                                            {":4: ", "under query"},
		request("request: {method: GET, path: [a/b]}"):                                             {":4: ", "as a list"},
		request("request: {method: GET, path: ['{p}']}, params: {p: {type: string}}"):              {":4: ", "required: true"},
		request("request: {method: GET, query: {p: '{p}'}}, params: {p: {type: flag, argv: [x]}}"): {":4: ", "boolean"},
		request("request: {method: GET, query: {'a b': c}}"):                                       {":4: ", "letters"},
		request("request: {method: GET}, params: {p: {type: string, required: true}}"):             {":4: ", "write {p}"},
		request("request: {method: GET, issuer_header: 'a b'}"):                                    {":4: ", "X-On-Behalf-Of"},
		request("sandbox: {read: [/usr]}, request: {method: GET}"):                                 {":4: ", "drop sandbox"},
		"http:\n  api: {url: ''}\n":                                                                {":2: ", "https://"},
		"http:\n  api: {url: 'https://h', secret_headers: {A: ''}}\n":                              {":2: ", "mode 0600"},
		"ssh:\n  W: {host: h, user: u, key_file: k, host_key: x}\n":                                {":2: ", "rename"},
		"ssh:\n  w: {host: h}\n":                                                                   {":2: ", "{issuer}"},
		"ssh:\n  w: {host: h, user: u, key_file: k}\n":                                             {":2: ", "ssh-keyscan"},
		"ssh:\n  w: {host: h, user: u, key_file: k, host_key: x, port: 70000}\n":                   {":2: ", "22"},
		"ssh:\n  w: {host: h, user: u, key_file: k, host_key: x, max_sessions: 65}\n":              {":2: ", "leave it out"},
		"agents:\n  You: {}\n":                                                                     {":2: ", "rename"},
		grant("colour: blue"):                                                                      {":2: ", "openscope init"},
		grant("allow: [x]"):                                                                        {":2: ", "write it as {verb"},
		grant("allow: [{verb: 'app.*'}]"):                                                          {":2: ", "no wildcards"},
		grant("allow: [{verb: a.b, params: {p: []}}]"):                                             {":2: ", "a list of values"},
		grant("allow: [{verb: a.b, params: {p: {pattern: x}}}]"):                                   {":2: ", "{pattern: '^..."},
		grant("delegate: {max_ttl: 1h}"):                                                           {":2: ", "10m"},
		grant("delegate: {verbs: ['*']}"):                                                          {":2: ", "no wildcards"},
		"agents: [\n":                                                                              {"yaml:", "openscope init"},
		"recipients:\n  Vendor: {key: x}\n":                                                        {"Vendor", "recipient add"},
		"recipients:\n  vendor: {key: x}\n":                                                        {"vendor", "recipient add"},
		"hello: world\n":                                                                           {"neither", "openscope init"},
	} {
		path := filepath.Join(t.TempDir(), "file.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := CheckFile(path)
		if err == nil {
			t.Errorf("taken:\n%s", text)
			continue
		}
		if fix := Fix(err); !strings.Contains(err.Error(), "file.yaml") || !strings.Contains(err.Error(), want[0]) || strings.Contains(err.Error(), "\n") || !strings.Contains(fix, want[1]) {
			t.Errorf("%s\n  says  %v\n  hints %s", text, err, fix)
		}
	}
}

// checked is what CheckFile says of a file with this text.
func checked(t *testing.T, text string) []error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := CheckFile(path)
	return Mistakes(err)
}

// TestEveryMistakeIsNamedAndNotOnlyTheFirst has files with several mistakes, and
// holds the check to all of their lines, in order, and to a fix for each.
func TestEveryMistakeIsNamedAndNotOnlyTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		lines []string
	}{
		"grants": {`agents:
  You: {}
  you:
    colour: blue
    users: [a]
    allow:
      - {verb: app}
      - {verb: app.a, params: {p: [], q: {min: 5, max: 1}}}
      - app.b
      - {verb: app.c, parms: {}}
      - {params: {p: x}}
    delegate:
      max_ttl: 1h
      max_output: lots
      verbs: [app.a, all]
  them:
    deny:
      - verb: app.a
        params:
          p: {pattern: x}
`, []string{":2: ", ":4: ", ":7: ", ":8: ", ":8: ", ":9: ", ":10: ", ":11: ", ":13: ", ":14: ", ":15: ", ":20: "}},
		"verbs": {`ssh:
  web-1:
    host: h
    port: 70000
  web-2: {host: h, user: u, key_file: k, host_key: nonsense}
http:
  api:
    url: nowhere
    secret_headers: {A: ''}
verbs:
  app.a:
    class: write
    executor: exec
    timeout: 1h
    summary: "\e[2J"
    argv: [x]
    params:
      p: {type: integer, max_length: 5}
      q: {type: text}
  App.b: {class: read, executor: exec, argv: [x]}
  app.c:
    colour: blue
    max_output: lots
  app.d:
    class: read
    executor: exec
    argv: [x, '{p}', 'a{p}{p}', '{q}']
    params: {p: {type: string, required: true}}
  app.e:
    class: read
    executor: exec
    argv: [x]
    sandbox: {read: [usr]}
  app.f:
    class: read
    executor: http
    target: api
    request: {method: POST, issuer_header: 'a b', path: [a/b], query: {'a b': c}}
`, []string{":2: ", ":2: ", ":2: ", ":7: ", ":7: ", ":12: ", ":14: ", ":15: ", ":18: ", ":18: ", ":19: ", ":20: ", ":22: ", ":23: ", ":27: ", ":27: ", ":33: ", ":38: ", ":38: ", ":38: ", ":38: "}},
		"recipients": {"recipients:\n  Vendor: {key: x}\n  a: {key: y}\n  b: {colour: blue}\n", []string{":2: ", ":3: ", ":4: ", ":4: "}},
		"configuration": {"state_dir: /x\nmax_ttl: 31m\napprove_within: -1s\nrelays:\n  - address: a:1\n    pin: nonsense\ntoken_file: /none\n",
			[]string{":2: ", ":3: ", ":6: ", ":7: "}},
		"two keys twice":     {"verbs:\n  app.a: {class: read, class: read}\n  app.a: {}\nverbs: {}\n", []string{":2: ", ":3: ", ":4: "}},
		"keys of no use":     {"max_ttl: 1m\ncolour: blue\nsocket: [x]\n", []string{":2: ", ":3: "}},
		"hosts of no use":    {"ssh:\n  a: {host: h, user: u, key_file: k, host_key: x}\n  b: {host: h, user: u, key_file: k, host_key: x}\n", []string{":2: ", ":3: "}},
		"anchors, twice":     {"verbs:\n  a.b: &x {}\n  a.c: *x\n", []string{":2: ", ":3: "}},
		"no YAML at all":     {"verbs: [\n", []string{":1: "}},
		"services of no use": {"http:\n  a: {url: 'https://u:p@h'}\n  b: {url: 'https://h?q'}\n", []string{":2: ", ":3: "}},
	} {
		wrong := checked(t, c.text)
		var places []string
		for _, err := range wrong {
			_, rest, _ := strings.Cut(err.Error(), "file.yaml")
			place, _, _ := strings.Cut(rest, " ")
			places = append(places, place+" ")
			if Fix(err) == "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v\n  hints %q", name, err, Fix(err))
			}
		}
		if !slices.Equal(places, c.lines) {
			t.Errorf("%s: %q, want %q:", name, places, c.lines)
			for _, err := range wrong {
				t.Log(err)
			}
		}
	}
}

// What a reload refuses is one line in the log, which names the first mistake
// and how many there are.
func TestAFileFullOfMistakesIsToldInBoundedLength(t *testing.T) {
	text := "verbs:\n"
	for i := range 500 {
		text += fmt.Sprintf("  app.v%d: {class: x}\n", i)
	}
	wrong := checked(t, text)
	if n := len(wrong); n < 100 || n > 101 || !strings.Contains(wrong[n-1].Error(), "more") {
		t.Errorf("%d mistakes, the last %v", n, wrong[n-1])
	}
	if text := yamlfile.Mistakes(wrong).Error(); !strings.Contains(text, "(and 100 more after it)") || len(text) > 300 {
		t.Error(text)
	}
}
