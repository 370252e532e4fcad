package daemon

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openscope/daemon/internal/control"
	"openscope/wire/call"
)

func TestACallThatTheGrantNoLongerAllowsEndsWithTheReload(t *testing.T) {
	h := newHostileHalf(t)
	done := make(chan control.CallResult, 1)
	go func() {
		result, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.hold"}, io.Discard, io.Discard)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	waitUntil := time.Now().Add(10 * time.Second)
	for held := 0; held == 0; {
		marks, err := filepath.Glob(filepath.Join(h.dir, "held.*"))
		if err != nil || time.Now().After(waitUntil) {
			t.Fatal("the call does not run: ", err)
		}
		held = len(marks)
		time.Sleep(5 * time.Millisecond)
	}
	// A reload that takes nothing away from it leaves it alone.
	h.edit("grants.yaml", "{verb: test.mark}, ", "")
	h.edit("grants.yaml", "verbs: [test.mark, ", "verbs: [")
	if err := h.reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case result := <-done:
		t.Fatalf("it ended: %+v", result)
	case <-time.After(100 * time.Millisecond):
	}
	h.edit("grants.yaml", "{verb: test.hold}, ", "")
	began := time.Now()
	if err := h.reload(); err != nil {
		t.Fatal(err)
	}
	result := <-done
	if took := time.Since(began); took > time.Second || result.Cause != call.Denied.String() || !strings.Contains(result.Reason, "no longer allowed") {
		t.Errorf("%+v after %v", result, took)
	}
}
