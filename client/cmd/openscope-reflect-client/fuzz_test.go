package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"openscope/client"
	"openscope/client/mcp"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/term"
)

// said is what one way of saying a call comes to: what is asked of the daemon,
// or nothing where it is refused before.
type said struct {
	verb   string
	params []call.Param
	sent   bool
}

// judged is what an honest daemon makes of it: the values that the verb would get,
// or a refusal. It reads the passport as wire/README.md says, and knows nothing of
// how the call was said.
func (s said) judged(g passport.Grant) (values map[string]string, allowed bool) {
	request := call.Request{Verb: s.verb, Params: s.params}
	if !s.sent || request.Check() != nil {
		return nil, false
	}
	values = make(map[string]string)
	for _, p := range s.params {
		if _, twice := values[p.Name]; twice || !isText(p.Name) || !isText(p.Value) {
			return nil, false
		}
		values[p.Name] = p.Value
	}
	for _, v := range g.Verbs {
		for _, p := range v.Params {
			if _, set := values[p.Name]; v.Name == s.verb && !set && p.Default != nil {
				values[p.Name] = *p.Default
			}
		}
	}
	return values, g.Allows(s.verb, values) == nil
}

// isText is what a daemon asks of a value without a pattern, and more than that: no
// pattern makes JSON able to carry the rest.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

// offline is a session without a network: it keeps what is asked.
type offline struct {
	passport *passport.Passport
	mu       sync.Mutex
	asked    []client.Asked
}

func (o *offline) Passport() *passport.Passport { return o.passport }
func (o *offline) Remaining() time.Duration     { return time.Minute }
func (o *offline) Words() []string              { return nil }
func (o *offline) Done() <-chan struct{}        { return nil }
func (o *offline) Err() error                   { return nil }

func (o *offline) Do(_ context.Context, a client.Asked) (client.Result, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, a)
	return client.Result{Cause: call.Exited, Complete: true}, nil
}

// host is an MCP host that writes its messages itself.
type host struct {
	to   io.Writer
	from *bufio.Reader
	id   int
}

func newHost(f *testing.F, o *offline) *host {
	hostIn, toHost := io.Pipe()
	fromHost, hostOut := io.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = mcp.New(mcp.Config{Rand: rand.Reader}, o).Run(context.Background(), fromHost, toHost)
	})
	f.Cleanup(func() { hostOut.Close(); hostIn.Close(); serving.Wait() })
	h := &host{to: hostOut, from: bufio.NewReaderSize(hostIn, 1<<20)}
	if _, err := h.ask("initialize", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}`); err != nil {
		f.Fatal(err)
	}
	fmt.Fprintln(hostOut, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return h
}

// ask returns when the answer has come.
func (h *host) ask(method, params string) (line string, err error) {
	h.id++
	if _, err := fmt.Fprintf(h.to, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", h.id, method, params); err != nil {
		return "", err
	}
	for {
		line, err := h.from.ReadString('\n')
		var answer struct{ ID int }
		if err != nil || json.Unmarshal([]byte(line), &answer) == nil && answer.ID == h.id {
			return line, err
		}
	}
}

// byMCP says it as a tool's call, each value as JSON has it for the parameter's type.
func (h *host) byMCP(t *testing.T, o *offline, verb string, params []call.Param) said {
	var members []string
	for _, p := range params {
		name, value := jsonText(p.Name), jsonText(p.Value)
		typed := map[string]string{"lines": "integer", "loud": "flag"}[p.Name]
		if typed != "" && json.Valid([]byte(p.Value)) && strings.TrimSpace(p.Value) == p.Value && strings.Trim(p.Value, `"[{`) == p.Value {
			value = p.Value
		}
		members = append(members, name+":"+value)
	}
	o.asked = nil
	if _, err := h.ask("tools/call", fmt.Sprintf(`{"name":%s,"arguments":{%s}}`, jsonText(verb), strings.Join(members, ","))); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asked) != 1 {
		return said{}
	}
	return said{o.asked[0].Verb, o.asked[0].Params, true}
}

func jsonText(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// byWords says it as the words of a command line, or of a line at the prompt.
func byWords(p *passport.Passport, words []string) said {
	params, err := readParams(words[1:])
	if err != nil {
		return said{}
	}
	return said{words[0], client.Fill(client.Alternatives(p, words[0]), params), true}
}

// byPrompt says it as a line.
func byPrompt(p *passport.Passport, verb string, params []call.Param) said {
	line := quoteWord(verb)
	for _, q := range params {
		line += " " + quoteWord(q.Name+"="+q.Value)
	}
	words, behind, err := splitCall(line)
	if err != nil || behind || len(words) == 0 {
		return said{}
	}
	return byWords(p, words)
}

var typedVerb = passport.Verb{Name: "test.typed", Class: passport.Read, Params: []passport.Param{
	{Name: "host", Type: "string", Required: true, Allowed: passport.OneOf("web-1")},
	{Name: "lines", Type: "integer", Default: textOf("5"), Allowed: passport.Between(-3, 100)},
	{Name: "loud", Type: "flag", Default: textOf("false"), Allowed: passport.OneOf("false", "true")},
	{Name: "mode", Type: "enum", Default: textOf("soft"), Allowed: passport.OneOf("soft", "hard", "very hard")},
	{Name: "note", Type: "string", Allowed: passport.AnyValue()},
	{Name: "text", Type: "string", Required: true, Allowed: passport.StartsWith("he")},
}}

func textOf(s string) *string { return &s }

// FuzzOneCallInFourWays says a call as a raw record, as words of a command line, as
// a line at the prompt, and as a tool's call over MCP (F14): the daemon must be asked
// for the same, or it must refuse all of them. What runs, and what is refused by the
// real one, is the table of TestACallIsJudgedTheSameHoweverItIsSaid.
func FuzzOneCallInFourWays(f *testing.F) {
	for _, seed := range [][5]string{
		{"test.typed", "text", "hello", "lines", "5"}, {"test.typed", "text", "he", "lines", "05"}, {"test.typed", "text", "he", "lines", "5.0"},
		{"test.typed", "text", "hello", "loud", "true"}, {"test.typed", "text", "he\\\"llo\\", "mode", "very hard"}, {"test.typed", "text", "he &", "text", "he"},
		{"test.typed", "text", "he", "host", "web-2"}, {"test.typed", "text", "he", "host", "web-1"}, {"test.Typed", "text", "he", "", ""},
		{"test.typed", "note", "\u202e\x1b[2J", "text", "he\xff"}, {"jobs", "text", "he", "__proto__", "x"}, {"test.typed", "lines", "-0", "text", "he"},
		{"test.typed", "lines", "1e1", "text", "he\ufffd"}, {"test.typed", "loud", "null", "text", "he\u0085"}, {" test.typed", "tеxt", "he", "text ", "he"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	o := &offline{passport: &passport.Passport{Issuer: "you", Serial: 1, Grant: passport.Grant{Verbs: []passport.Verb{typedVerb}}}}
	h := newHost(f, o)
	f.Fuzz(func(t *testing.T, verb, name1, value1, name2, value2 string) {
		params := []call.Param{{Name: name1, Value: value1}, {Name: name2, Value: value2}}
		if name2 == "" {
			params = params[:1]
		}
		if slices.Contains(commands, verb) || slices.ContainsFunc(params, func(p call.Param) bool {
			// What no word can hold, and no line, has only two ways to be said.
			return strings.ContainsAny(p.Name, "=\n\x00") || strings.ContainsAny(p.Value, "\n\x00")
		}) || strings.ContainsAny(verb, "\n\x00") {
			return
		}
		words := []string{verb}
		for _, p := range params {
			words = append(words, p.Name+"="+p.Value)
		}
		want := said{verb, client.Fill(client.Alternatives(o.passport, verb), params), true}
		values, allowed := want.judged(o.passport.Grant)
		for way, got := range map[string]said{
			"the call command": byWords(o.passport, words), "the prompt": byPrompt(o.passport, verb, params), "MCP": h.byMCP(t, o, verb, params),
		} {
			theirs, ok := got.judged(o.passport.Grant)
			if ok != allowed || allowed && !maps.Equal(theirs, values) {
				t.Errorf("%q: by %s %v %v, as a raw record %v %v", words, way, ok, theirs, allowed, values)
			}
			if shown := term.Clean(fmt.Sprint(got)); !utf8.ValidString(shown) {
				t.Errorf("%q is not shown as text", shown)
			}
		}
	})
}
