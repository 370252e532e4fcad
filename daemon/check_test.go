package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		"verbs:\n  a.b: {class: x}\n  a.c: {class: x}\n  a.d: {class: x}\n":                        {"(and 2 more", "add class"},
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
		grant("allow: [x]"):                                                                        {":2: ", "openscope init"},
		grant("allow: [{verb: 'app.*'}]"):                                                          {":2: ", "no wildcards"},
		grant("allow: [{verb: a.b, params: {p: []}}]"):                                             {":2: ", "openscope init"},
		grant("allow: [{verb: a.b, params: {p: {pattern: x}}}]"):                                   {":2: ", "openscope init"},
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
