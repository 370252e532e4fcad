package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// addVerb puts one more verb into the files, and lets the issuer call it.
func (h *hostileHalf) addVerb(name, body string) {
	h.t.Helper()
	h.edit("verbs.yaml", "verbs:\n", "verbs:\n  "+name+": "+body+"\n")
	h.edit("grants.yaml", "allow: [", "allow: [{verb: "+name+"}, ")
	if err := h.reload(); err != nil {
		h.t.Fatal(err)
	}
}

func TestTheDaemonsOwnCredentialsNeverAppearInOutput(t *testing.T) {
	h := newHostileHalf(t)
	identity := filepath.Join(h.dir, "identity.key")
	secret := filepath.Join(h.dir, "secret")
	if err := os.WriteFile(secret, []byte("Bearer canary-in-a-header\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.edit("verbs.yaml", "verbs:\n", "http:\n  api: {url: 'https://127.0.0.1:1/', secret_headers: {Authorization: secret}}\nverbs:\n")
	h.addVerb("test.leak", "{class: raw, executor: exec, argv: [/bin/sh, -c, 'echo before; cat "+identity+" "+secret+"; echo after; cat "+secret+" >&2']}")

	var out, errs bytes.Buffer
	result, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.leak"}, &out, &errs)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "before\n[suppressed]\nBearer [suppressed]\nafter\n" || errs.String() != "Bearer [suppressed]\n" {
		t.Errorf("%q, %q", out.String(), errs.String())
	}
	if !strings.Contains(result.Reason, "3 of the daemon's own credentials") || result.Cause != call.Exited.String() {
		t.Errorf("the caller is told %+v", result)
	}
	log, err := os.ReadFile(h.logPath())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(out.Bytes())
	last := string(log[bytes.LastIndexByte(bytes.TrimSpace(log), '\n')+1:])
	if !strings.Contains(last, `"count":3`) || !strings.Contains(last, hex.EncodeToString(sum[:])) {
		t.Errorf("the log has %s", last)
	}
	if bytes.Contains(log, []byte("canary-in-a-header")) {
		t.Error("the log has the secret")
	}
}

// TestAFloodEndsAtTheLimitAndTakesNoMemory pours both streams out at once, with
// no newline and invalid UTF-8, through the filter and the counting.
func TestAFloodEndsAtTheLimitAndTakesNoMemory(t *testing.T) {
	h := newHostileHalf(t)
	h.addVerb("test.flood", "{class: read, executor: exec, timeout: 30m, argv: [/bin/sh, -c, 'tr \"\\\\0\" \"\\\\377\" </dev/zero >&2 & exec cat /dev/zero']}")
	var sent atomic.Uint64
	sink := func(_ context.Context, _ call.Stream, p []byte) (int, error) {
		sent.Add(uint64(len(p)))
		return len(p), nil
	}
	issuer, err := h.actingAs(h.ctx, "you")
	if err != nil {
		t.Fatal(err)
	}
	meter := session.NewMeter(h.clock, session.Limits{Concurrent: 1, PerSecond: 10, CallOutput: floodBytes, Output: 1 << 62})
	act := &action{issuer: issuer, agent: "you", meter: meter}
	act.request.Verb = "test.flood"
	before := residentKiB(t)
	done := h.serveCall(h.ctx, act, newOutput(sink, meter))
	grown := residentKiB(t) - before
	if done.cause != call.Limit || sent.Load() != floodBytes || done.stdout.Bytes+done.stderr.Bytes != floodBytes || done.stdout.Bytes == 0 || done.stderr.Bytes == 0 {
		t.Errorf("%d bytes sent, %+v", sent.Load(), done)
	}
	if grown > 32<<10 {
		t.Errorf("%d KiB more memory", grown)
	}
	t.Logf("%d MiB, %d KiB more memory", floodBytes>>20, grown)
}

func residentKiB(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n := 0
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
