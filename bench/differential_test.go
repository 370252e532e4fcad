package bench

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/call"
	"openscope/wire/handle"
)

// One call said in four ways must come to the same (F14): as a raw record, at
// the prompt, by the call command, and as a tool over MCP.

const typedVerbs = `
verbs:
  test.typed:
    summary: Say what it was given
    class: read
    executor: exec
    argv: [/bin/echo, "{text}", "{lines}", "{loud}", "{since}", "{mode}", "{host}"]
    params:
      text: {type: string, required: true}
      lines: {type: integer, min: 1, max: 100, default: "5"}
      loud: {type: flag, argv: [loud], default: "false"}
      since: {type: duration, default: 5m}
      mode: {type: enum, enum: [soft, hard, "very hard"], default: soft}
      host: {type: string, enum: [web-1, web-2], required: true}
`

const typedGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.typed}]
    delegate: {to: [vendor-b], verbs: [test.typed]}
`

// saying is one case: a call as somebody might say it.
type saying struct {
	what   string
	verb   string
	params []call.Param
}

// sayings are mistyped, missing, extra, duplicate and look-alike parameters, and
// some that are right.
func sayings() []saying {
	right := params("text", "hello", "lines", "3", "loud", "true", "since", "90s", "mode", "hard")
	cases := []saying{{"right", "test.typed", right}, {"least", "test.typed", params("text", "hello")}, {"nothing", "test.typed", nil}}
	add := func(what string, p []call.Param) { cases = append(cases, saying{what, "test.typed", p}) }
	values := []string{
		"", " ", "0", "1", "5", "05", "+5", "-5", " 5", "5 ", "5.0", "5e0", "0x5", "1_0", "100", "101", "99999999999999999999", "٥", "５",
		"true", "false", "True", "TRUE", "yes", "null", "on", "60s", "1m", "1h", "1h30m", "0s", "0m", "1d", "soft", "Soft", "very hard", "very  hard",
		"hello", "hеllo", "hello\u200b", "ｈello", "-rf", "--", "a;b", "$(id)", "a b", "../x", `a"b`, `a\b`, "a&b", "&", "web-1", "web-2", "web-3", "\x1b[2J", strings.Repeat("x", 300),
	}
	for i, p := range right {
		for _, v := range values {
			changed := slices.Clone(right)
			changed[i].Value = v
			add(fmt.Sprintf("%s=%q", p.Name, v), changed)
		}
		for _, name := range []string{strings.ToUpper(p.Name), strings.ToUpper(p.Name[:1]) + p.Name[1:], p.Name + " ", " " + p.Name, p.Name + "s", p.Name[:len(p.Name)-1], strings.Replace(p.Name, "e", "е", 1) + "\u200d", "--" + p.Name, p.Name + "\x00", p.Name + "[]", `"` + p.Name + `"`, ""} {
			changed := slices.Clone(right)
			changed[i].Name = name
			add(fmt.Sprintf("%s as %q", p.Name, name), changed)
		}
		add("without "+p.Name, slices.Delete(slices.Clone(right), i, i+1))
		add(p.Name+" twice", append(slices.Clone(right), p))
		add(p.Name+" twice, and different", append(slices.Clone(right), call.Param{Name: p.Name, Value: "7"}))
		add(p.Name+" first", append([]call.Param{p}, slices.Delete(slices.Clone(right), i, i+1)...))
	}
	for _, extra := range []string{"host", "more", "verb", "argv", "user", "path", "_meta", "progressToken", "__proto__", "constructor"} {
		for _, v := range []string{"web-1", "web-2", "hello"} {
			add(fmt.Sprintf("and %s=%s", extra, v), append(slices.Clone(right), call.Param{Name: extra, Value: v}))
		}
	}
	for _, verb := range []string{"test.Typed", "TEST.typed", "test.typed ", "test.type", "test.typed2", "test_typed", "tеst.typed", "test..typed", "typed", "jobs.typed"} {
		cases = append(cases, saying{"as " + verb, verb, right})
	}
	return cases
}

// verdict is what a saying came to: whether anything ran, and what it printed.
type verdict struct {
	ran    bool
	output string
}

func TestACallIsJudgedTheSameHoweverItIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setRules(typedVerbs, typedGrants)
	w.writeKey()
	cases := sayings()
	if len(cases) < 400 {
		t.Fatalf("only %d cases", len(cases))
	}
	// A session each: its limit of calls per second is shared by all who use it.
	speakers := map[string]func(saying) (verdict, bool){
		"a raw record": rawSpeaker(w), "the prompt": promptSpeaker(w), "MCP": mcpSpeaker(w), "call": callSpeaker(w),
	}
	heard := make(map[string][]verdict)
	var mu sync.Mutex
	var speaking sync.WaitGroup
	for name, speak := range speakers {
		speaking.Go(func() {
			all := make([]verdict, len(cases))
			for i, c := range cases {
				if name == "call" && i%callEvery != 0 {
					continue
				}
				all[i] = untilJudged(t, name, c, speak)
			}
			mu.Lock()
			heard[name] = all
			mu.Unlock()
		})
	}
	speaking.Wait()
	ran := 0
	for i, c := range cases {
		want := heard["a raw record"][i]
		if want.ran {
			ran++
		}
		for name := range speakers {
			if name == "call" && i%callEvery != 0 {
				continue
			}
			if got := heard[name][i]; got != want {
				t.Errorf("%s: by %s %+v, as a raw record %+v", c.what, name, got, want)
			}
		}
	}
	if ran < 20 || ran > len(cases)/2 {
		t.Errorf("%d of %d ran: the table proves little", ran, len(cases))
	}
	t.Logf("%d cases, of which %d ran; the call command had every %dth", len(cases), ran, callEvery)
}

// untilJudged says it again where the session's rate was all that refused it.
func untilJudged(t *testing.T, name string, c saying, speak func(saying) (verdict, bool)) verdict {
	for range 200 {
		if v, judged := speak(c); judged {
			return v
		}
		time.Sleep(60 * time.Millisecond) // the rate is 20 a second: there is nothing to wait for but time
	}
	t.Errorf("%s: %s is never judged", c.what, name)
	return verdict{}
}

// typedShare opens a session of the verb, with one parameter pinned.
func typedShare(w *world) handle.Handle {
	_, h := w.open("10m", "test.typed:host=web-1")
	return h
}

// writeKey makes the vendor's key a file, for the program.
func (w *world) writeKey() {
	w.t.Helper()
	w.write("vendor.key", w.vendor.Text()+"\n")
	if err := os.Chmod(w.path("vendor.key"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// clientEnv is the environment of a recipient's program with the handle.
func (w *world) clientEnv(h handle.Handle) []string {
	return []string{
		"OPENSCOPE_IDENTITY=" + w.path("vendor.key"), "OPENSCOPE_KNOWN_DAEMONS=" + w.path("known"),
		"OPENSCOPE_PASSPORT=" + h.Text(), "OPENSCOPE_FINGERPRINT=" + hex.EncodeToString(h.Fingerprint[:]),
	}
}

func rawSpeaker(w *world) func(saying) (verdict, bool) {
	s := w.mustConnect(typedShare(w))
	return func(c saying) (verdict, bool) {
		var stdout bytes.Buffer
		filled := client.Fill(client.Alternatives(s.Passport(), c.verb), c.params)
		r, err := s.Call(w.t.Context(), c.verb, filled, &stdout, io.Discard)
		if err != nil { // it does not fit into a record
			return verdict{}, true
		}
		return verdict{r.Cause == call.Exited, stdout.String()}, r.Cause != call.Limit
	}
}

func callSpeaker(w *world) func(saying) (verdict, bool) {
	env := w.clientEnv(typedShare(w))
	return func(c saying) (verdict, bool) {
		args := []string{"call", "--", c.verb}
		for _, p := range c.params {
			word := p.Name + "=" + p.Value
			if strings.Contains(word, "\x00") { // no argument can hold it
				return verdict{}, true
			}
			args = append(args, word)
		}
		stdout, stderr, code := run(w.t, env, "openscope-reflect-client", args...)
		if code != 0 && code != 2 && code != 3 && code != 4 && code != 8 {
			w.t.Errorf("%s: exit %d: %s", c.what, code, stderr)
		}
		return verdict{code == 0, stdout}, code != 8
	}
}

// promptSpeaker types each saying, and help behind it to see where its answer
// ends.
func promptSpeaker(w *world) func(saying) (verdict, bool) {
	cmd := command(w.clientEnv(typedShare(w)), "openscope-reflect-client", "--json")
	in, out := pipes(w.t, cmd)
	const mark = "Tab completes."
	answer := func() string {
		var all strings.Builder
		for !strings.Contains(all.String(), mark) {
			line, err := out.ReadString('\n')
			if err != nil {
				w.t.Errorf("the prompt ended: %v", err)
				return ""
			}
			all.WriteString(line)
		}
		return all.String()
	}
	result := regexp.MustCompile(`\{"verb":.*"cause":"([a-z-]+)"`)
	text := regexp.MustCompile(`\{"stream":"stdout","text":("(?:[^"\\]|\\.)*")\}`)
	return func(c saying) (verdict, bool) {
		line := quoted(c.verb)
		for _, p := range c.params {
			line += " " + quoted(p.Name+"="+p.Value)
		}
		fmt.Fprintf(in, "%s\nhelp\n", line)
		answered := answer()
		m := result.FindStringSubmatch(answered)
		if m == nil { // it was refused before anything was sent
			return verdict{}, true
		}
		v := verdict{ran: m[1] == "exited"}
		for _, piece := range text.FindAllStringSubmatch(answered, -1) {
			unquoted, err := strconv.Unquote(piece[1])
			if err != nil {
				w.t.Errorf("%s: %v", piece[1], err)
			}
			v.output += unquoted
		}
		return v, m[1] != "limit"
	}
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// mcpSpeaker writes the messages itself: no client library sends a name twice.
func mcpSpeaker(w *world) func(saying) (verdict, bool) {
	cmd := command(w.clientEnv(typedShare(w)), "openscope-reflect-client", "mcp")
	in, out := pipes(w.t, cmd)
	id := 0
	ask := func(method, params string) (result mcpResult, failed bool) {
		id++
		fmt.Fprintf(in, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", id, method, params)
		for {
			line, err := out.ReadBytes('\n')
			if err != nil {
				w.t.Errorf("the MCP server ended: %v", err)
				return mcpResult{}, true
			}
			var answer struct {
				ID     int
				Result mcpResult
				Error  json.RawMessage
			}
			if json.Unmarshal(line, &answer) == nil && answer.ID == id {
				return answer.Result, answer.Error != nil
			}
		}
	}
	ask("initialize", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}`)
	fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return func(c saying) (verdict, bool) {
		var members []string
		for _, p := range c.params {
			name, _ := json.Marshal(p.Name)
			members = append(members, string(name)+":"+jsonOf(p))
		}
		verb, _ := json.Marshal(c.verb)
		r, failed := ask("tools/call", fmt.Sprintf(`{"name":%s,"arguments":{%s}}`, verb, strings.Join(members, ",")))
		got := r.StructuredContent
		return verdict{!failed && got.Outcome == "succeeded", got.Stdout.Text}, got.Outcome != "limited"
	}
}

// jsonOf is a value as an agent would write it who knows the parameter's type.
func jsonOf(p call.Param) string {
	isNumber := json.Valid([]byte(p.Value)) && strings.Trim(p.Value, "-0123456789.e") == "" && p.Value == strings.TrimSpace(p.Value)
	isWord := p.Value == "true" || p.Value == "false" || p.Value == "null"
	if p.Name == "lines" && isNumber || p.Name == "loud" && (isNumber || isWord) {
		return p.Value
	}
	text, _ := json.Marshal(p.Value)
	return string(text)
}
