package bench

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// conformance is where clients of another make are, once .ci/npm has put them
// there.
const conformance = "../client/mcp/testdata/conformance"

// otherNode is the Node that those clients want, which the machine may not have.
func otherNode(t *testing.T) string {
	t.Helper()
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	node, err := filepath.Abs(filepath.Join(conformance, "node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(node); err != nil {
		t.Skip("the MCP clients of another make are not installed (.ci/npm, which make test runs, had no npm or got nothing from it)")
	}
	return node
}

// event is something that the client of another make has seen.
type event struct {
	Event, Message string
	ID             string
	Progress       float64
	Server         struct{ Name string }
	Capabilities   struct {
		Tools struct{ ListChanged bool }
	}
	Instructions string
	Tools        []mcpTool
	Result       mcpResult
}

type mcpTool struct {
	Name, Title, Description  string
	InputSchema, OutputSchema map[string]any
	Annotations               struct{ ReadOnlyHint, DestructiveHint, OpenWorldHint bool }
}

type mcpResult struct {
	IsError           bool
	Content           []struct{ Type, Text string }
	StructuredContent struct {
		Verb, Call, Outcome, Cause, Reason string
		Final, Complete, Truncated         bool
		Untrusted                          bool `json:"output_is_untrusted_data"`
		Status                             int
		Stdout, Stderr                     struct {
			Text, SHA256 string
			Bytes        int
		}
	}
}

func (r mcpResult) text() string {
	var all []string
	for _, c := range r.Content {
		all = append(all, c.Text)
	}
	return strings.Join(all, "\n")
}

// typescript is the official TypeScript client, with our server started by it.
type typescript struct {
	t      *testing.T
	in     io.Writer
	events chan event
}

func newTypescript(t *testing.T, s *site, args ...string) *typescript {
	t.Helper()
	node := otherNode(t)
	cmd := exec.Command(node, append([]string{"client.mjs", filepath.Join(programs, "openscope-reflect-client"), "mcp"}, args...)...)
	cmd.Dir = conformance
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, s.env()...)
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &typescript{t: t, in: in, events: make(chan event, 1024)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.events)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				c.events <- e
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		<-done
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the client's stderr: %s", stderr.String())
		}
	})
	return c
}

func (c *typescript) do(operation map[string]any) {
	c.t.Helper()
	line, err := json.Marshal(operation)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		c.t.Fatal(err)
	}
}

// await is the next event of the kind, and of the call where it is one's.
func (c *typescript) await(kind, id string) event {
	c.t.Helper()
	late := time.After(20 * time.Second)
	var seen []string
	for {
		select {
		case e, more := <-c.events:
			if !more {
				c.t.Fatalf("the client ended before %s of %q; seen: %v", kind, id, seen)
			}
			if e.Event == kind && e.ID == id {
				return e
			}
			seen = append(seen, e.Event+" "+e.Message)
		case <-late:
			c.t.Fatalf("no %s of %q; seen: %v", kind, id, seen)
		}
	}
}

func (c *typescript) call(id, name string, arguments map[string]any) mcpResult {
	c.t.Helper()
	c.begin(id, name, arguments)
	return c.await("result", id).Result
}

func (c *typescript) begin(id, name string, arguments map[string]any) {
	c.t.Helper()
	c.do(map[string]any{"op": "call", "id": id, "name": name, "arguments": arguments})
}

func (c *typescript) list() map[string]mcpTool {
	c.t.Helper()
	c.do(map[string]any{"op": "list"})
	all := make(map[string]mcpTool)
	for _, tool := range c.await("tools", "").Tools {
		all[tool.Name] = tool
	}
	return all
}

func TestAnAgentOfAnotherMakeDoesAllThatMCPHas(t *testing.T) {
	t.Parallel()
	otherNode(t)
	s := newSite(t)
	s.open("5m", "test.echo:text=hello|world", "test.follow", "test.count")
	c := newTypescript(t, s)
	ready := c.await("ready", "")
	if ready.Server.Name != "openscope" || !ready.Capabilities.Tools.ListChanged || !strings.Contains(ready.Instructions, "denial is final") {
		t.Errorf("initialized with %+v", ready)
	}
	tools := c.list()
	if len(tools) != 3 || !tools["test.echo"].Annotations.ReadOnlyHint || tools["test.echo"].Annotations.DestructiveHint {
		t.Errorf("listed: %+v", tools)
	}
	agentCalls(c)
	agentCancels(s, c)
	agentSeesChanges(s, c, tools)
}

func agentCalls(c *typescript) {
	t := c.t
	r := c.call("echo", "test.echo", map[string]any{"text": "hello"})
	sum := sha256.Sum256([]byte("hello\n"))
	if got := r.StructuredContent; r.IsError || got.Outcome != "succeeded" || got.Stdout.Text != "hello\n" || got.Stdout.SHA256 != hex.EncodeToString(sum[:]) ||
		!got.Complete || got.Truncated || !got.Untrusted || !strings.Contains(r.text(), "[untrusted stdout begins") {
		t.Errorf("%+v", r)
	}
	if r := c.call("other", "test.echo", map[string]any{"text": "other"}); !r.IsError || r.StructuredContent.Outcome != "invalid_arguments" {
		t.Errorf("a value outside of the passport: %+v", r)
	}
	r = c.call("count", "test.count", nil)
	if got := r.StructuredContent; got.Outcome != "succeeded" || !got.Truncated || !got.Complete || got.Stdout.Bytes != 1_988_895 {
		t.Errorf("two million bytes: %d, %+v", len(got.Stdout.Text), got.Outcome)
	}
}

func agentCancels(s *site, c *typescript) {
	c.begin("follow", "test.follow", nil)
	for !strings.Contains(c.await("progress", "follow").Message, "canary-output-4711") {
	}
	if !s.following() {
		c.t.Error("the call does not run")
	}
	c.do(map[string]any{"op": "cancel", "id": "follow"})
	c.await("error", "follow")
	until(c.t, 2*time.Second, "the remote work is gone", func() bool { return !s.following() })
}

func agentSeesChanges(s *site, c *typescript, before map[string]mcpTool) {
	t := c.t
	s.must("openscope", "share", "extend", s.id, "--ttl", "5m", "--verb", "test.mark")
	c.await("list_changed", "")
	after := c.list()
	for name, tool := range before {
		if !reflect.DeepEqual(tool, after[name]) {
			t.Errorf("%s has changed: %+v", name, after[name])
		}
	}
	if mark := after["test.mark"]; len(after) != len(before)+1 || mark.Annotations.ReadOnlyHint || !mark.Annotations.DestructiveHint {
		t.Errorf("listed: %+v", after)
	}
	if r := c.call("mark", "test.mark", nil); r.StructuredContent.Outcome != "succeeded" {
		t.Errorf("the verb that was added: %+v", r)
	}
	s.must("openscope", "share", "revoke", s.id, "--reason", "that will do")
	c.await("list_changed", "")
	if left := c.list(); len(left) != 0 {
		t.Errorf("still listed: %+v", left)
	}
	r := c.call("late", "test.echo", map[string]any{"text": "hello"})
	if got := r.StructuredContent; !r.IsError || got.Outcome != "session_over" || !got.Final || !strings.Contains(r.text(), "revoked: that will do") {
		t.Errorf("after the end: %+v", r)
	}
}

func TestAnAgentIsToldThatTheIssuerIsAsked(t *testing.T) {
	t.Parallel()
	otherNode(t)
	s := newSite(t)
	s.open("5m", "test.echo")
	var opened struct{ ID, Handle string }
	text := s.must("openscope", "share", "open", "--json", "--agent", "you", "--to", "vendor-b", "--ttl", "5m", "--verb", "test.echo:text=hello", "--approve", "test.echo")
	if err := json.Unmarshal([]byte(text), &opened); err != nil {
		t.Fatal(err)
	}
	s.handle = opened.Handle
	c := newTypescript(t, s)
	c.await("ready", "")

	c.begin("approved", "test.echo", nil)
	if p := c.await("progress", "approved"); !strings.Contains(p.Message, "waiting for the issuer") {
		t.Errorf("progress says %q", p.Message)
	}
	s.must("openscope", "share", "approve", s.waiting(opened.ID))
	if r := c.await("result", "approved").Result; r.StructuredContent.Stdout.Text != "hello\n" {
		t.Errorf("%+v", r)
	}
	c.begin("denied", "test.echo", nil)
	s.must("openscope", "share", "deny", s.waiting(opened.ID), "--reason", "not on a Friday")
	r := c.await("result", "denied").Result
	if got := r.StructuredContent; !r.IsError || got.Outcome != "denied" || !got.Final || !strings.Contains(got.Reason, "not on a Friday") || !strings.Contains(r.text(), "This is final") {
		t.Errorf("%+v", r)
	}
}

func TestAnAgentIsServedOnlyWithAConfirmedFingerprint(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo", "test.mark")
	words := s.words
	for _, wrong := range []string{"", strings.Repeat("0", 64)} {
		s.words = wrong
		s.refused(3, "fingerprint", "openscope-reflect-client", "mcp")
	}
	s.words = words
	s.must("openscope-reflect-client", "--daemon", "acme", "verbs")
	s.words = ""
	s.must("openscope-reflect-client", "mcp") // it is known now; and its host has hung up
	s.refused(3, "fingerprint", "openscope-reflect-client", "--daemon", "other", "mcp")
	s.words = words
	s.refused(2, "standard input", "openscope-reflect-client", "mcp", "--passport", "-")
	s.refused(2, "app.verb", "openscope-reflect-client", "mcp", "--verb", "nonsense")
	s.refused(3, "test.secret", "openscope-reflect-client", "mcp", "--verb", "test.secret")
	s.refused(3, "nearest inside is text", "openscope-reflect-client", "mcp", "--verb", "test.mark", "--verb", "test.echo:word=x")
}

// The Inspector's command line, as somebody would try a server by hand.
func TestTheInspectorListsAndCalls(t *testing.T) {
	t.Parallel()
	node := otherNode(t)
	s := newSite(t)
	s.open("5m", "test.echo", "test.mark")
	inspector := func(want int, args ...string) (out string) {
		t.Helper()
		cmd := exec.Command(node, append([]string{
			"node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js", "--cli",
			filepath.Join(programs, "openscope-reflect-client"), "mcp", "--verb", "test.echo:text=hello|world",
		}, args...)...)
		cmd.Dir = conformance
		// The Inspector hands its servers a short environment only.
		home := t.TempDir()
		cmd.Env = []string{"PATH=" + filepath.Dir(node) + ":" + os.Getenv("PATH"), "HOME=" + home}
		for _, pair := range s.env() {
			cmd.Args = append(cmd.Args, "-e", pair)
		}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%v: exit %d, want %d\n%s%s", args, got, want, stdout.String(), stderr.String())
		}
		return stdout.String()
	}
	var listed struct{ Tools []mcpTool }
	if err := json.Unmarshal([]byte(inspector(0, "--method", "tools/list", "--strict")), &listed); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(listed.Tools, func(m mcpTool) bool { return m.Name == "test.echo" }) || len(listed.Tools) != 1 {
		t.Errorf("listed: %+v", listed.Tools)
	}
	var r mcpResult
	if err := json.Unmarshal([]byte(inspector(0, "--method", "tools/call", "--tool-name", "test.echo", "--tool-arg", "text=world")), &r); err != nil {
		t.Fatal(err)
	}
	if r.StructuredContent.Stdout.Text != "world\n" {
		t.Errorf("%+v", r)
	}
	inspector(5, "--method", "tools/call", "--tool-name", "test.echo", "--tool-arg", "text=other")
}

// pipes starts a program with its input and its output, both kinds as one, at
// hand; it is gone with the test.
func pipes(t testing.TB, cmd *exec.Cmd) (io.Writer, *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = in.Close()
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait()
		r.Close()
	})
	return in, bufio.NewReaderSize(r, 1<<20)
}
