package mcp

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"openscope/passport"
)

const (
	initialize  = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`
	initialized = `{"jsonrpc":"2.0","method":"notifications/initialized"}`
)

// serve hands a host's whole input to a server, and returns what it answered.
func serve(t *testing.T, s *session, in io.Reader) string {
	t.Helper()
	server := New(Config{Rand: rand.Reader}, s)
	server.quiet = 0
	var out bytes.Buffer
	_ = server.Run(t.Context(), io.NopCloser(in), discard{&out}) // why it ended is the host's business
	return out.String()
}

// FuzzHost is a host that writes whatever it likes (F10): nothing that is not in
// the passport is ever called, and every answer is a line of JSON.
func FuzzHost(f *testing.F) {
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"test.echo","arguments":{"text":"hello","times":2,"loud":true},"_meta":{"progressToken":7}}}`,
		`{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"test.pin","arguments":{"path":"/var/x"}}}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"test.echo","arguments":{"text":"hello","text":"world"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`,
		`[{"jsonrpc":"2.0","id":2,"method":"ping"}]`, `{"jsonrpc":"2.0","id":2,"method":"resources/list"}`, `{}`, `null`, `{"jsonrpc":"2.0","id":{}}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"test.echo","arguments":` + strings.Repeat("[", 2000) + `}}`,
		`{"jsonrpc":"2.0","id":3,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`,
	} {
		f.Add(true, []byte(line+"\n"))
		f.Add(false, []byte(line))
	}
	grant := passport.Grant{Verbs: []passport.Verb{echo, pin}}
	f.Fuzz(func(t *testing.T, greeted bool, input []byte) {
		if greeted {
			input = append([]byte(initialize+"\n"+initialized+"\n"), input...)
		}
		s := newSession(grant.Verbs...)
		began := time.Now()
		out := serve(t, s, bytes.NewReader(input))
		if took := time.Since(began); took > 5*time.Second { // on a machine that does other things too
			t.Errorf("it took %v", took)
		}
		for line := range strings.Lines(out) {
			if !json.Valid([]byte(line)) {
				t.Errorf("an answer is no JSON: %q", line)
			}
		}
		for _, asked := range s.asked {
			values := map[string]string{}
			if asked.Verb == echo.Name {
				values = map[string]string{"loud": "false", "times": "1"}
			}
			for _, p := range asked.Params {
				values[p.Name] = p.Value
			}
			if err := grant.Allows(asked.Verb, values); err != nil {
				t.Errorf("%s %v was called: %v", asked.Verb, asked.Params, err)
			}
		}
	})
}

// endless is a line without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	for i := range p {
		p[i] = ' '
	}
	copy(p, `{"`)
	return len(p), nil
}

func TestALineWithoutEndIsGivenUp(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	line := &endless{}
	serve(t, newSession(echo), line)
	runtime.ReadMemStats(&after)
	if line.read > 4*maxLine {
		t.Errorf("%d bytes of it were read", line.read)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16*maxLine {
		t.Errorf("%d bytes were allocated for it", grown)
	}
}
