package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/wire/call"
)

// failingDisk is the log's file on a disk whose k-th write, or sync, since it
// was armed goes wrong, and which is well again after that: it must be the
// daemon that stops, and not the disk.
type failingDisk struct {
	audit.File
	fault diskFault

	mu            sync.Mutex
	armed         bool
	at            int // which one fails
	writes, syncs int
	unsynced      []byte // written since the last sync that went well
	durable       []byte // since armed
}

// diskFault is what goes wrong: a write, of which this part is done all the
// same, or a sync.
type diskFault struct {
	name string
	part func(b []byte) []byte // nil: it is the sync
	err  error
}

var diskFaults = []diskFault{
	{"ENOSPC", func([]byte) []byte { return nil }, syscall.ENOSPC},
	{"ENOSPC after half", func(b []byte) []byte { return b[:len(b)/2] }, syscall.ENOSPC},
	{"ENOSPC after all but the newline", func(b []byte) []byte { return b[:len(b)-1] }, syscall.ENOSPC},
	{"EROFS", func([]byte) []byte { return nil }, syscall.EROFS},
	{"EDQUOT", func([]byte) []byte { return nil }, syscall.EDQUOT},
	{"EIO after all of it", func(b []byte) []byte { return b }, syscall.EIO},
	{"EIO on fdatasync", nil, syscall.EIO},
}

func (d *failingDisk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed {
		d.writes++
	}
	if d.armed && d.fault.part != nil && d.writes == d.at {
		part := d.fault.part(b)
		n, err := d.File.Write(part)
		return n, errors.Join(d.fault.err, err)
	}
	n, err := d.File.Write(b)
	d.unsynced = append(d.unsynced, b[:n]...)
	return n, err
}

func (d *failingDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed {
		d.syncs++
	}
	if d.armed && d.fault.part == nil && d.syncs == d.at {
		return d.fault.err
	}
	if err := d.File.Sync(); err != nil {
		return err
	}
	if d.armed {
		d.durable = append(d.durable, d.unsynced...)
	}
	d.unsynced = nil
	return nil
}

// on puts the disk below a daemon's log, and a good one back when the test is
// over.
func (d *failingDisk) on(h *hostileHalf) {
	h.t.Helper()
	cfg, err := h.logConfig()
	if err != nil {
		h.t.Fatal(err)
	}
	cfg.Open = func(path string) (audit.File, error) {
		file, err := audit.OpenFile(path)
		if err != nil || path != h.logPath() {
			return file, err
		}
		d.File = file
		return d, nil
	}
	if err := h.log.Close(); err != nil {
		h.t.Fatal(err)
	}
	// A process that another test forks has the file, and its lock, until it execs.
	var failed *audit.Log
	until(h.t, 10*time.Second, "the log can be opened again", func() bool {
		failed, _, err = audit.Open(h.logPath(), cfg)
		return !errors.Is(err, audit.ErrLocked)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.core.log = failed
	h.t.Cleanup(func() {
		h.calls.Wait()
		failed.Close()
		good := audit.Config{Boot: h.clock.Boot, Wall: h.clock.Wall, BootID: "good"}
		if h.core.log, _, err = audit.Open(filepath.Join(h.dir, "good.log"), good); err != nil {
			h.t.Error(err)
		}
	})
}

func (d *failingDisk) arm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = true
}

// intents are the names of the runs whose intent is durable.
func (d *failingDisk) intents(t *testing.T) map[string]bool {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make(map[string]bool)
	for r, err := range audit.Read(bytes.NewReader(d.durable)) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == "call" {
			names[r.Params[0].Value] = true
		}
	}
	return names
}

// Each call writes twice, its intent and its outcome: so many calls are made
// under each fault, and one of the issuer's own after them.
const faultCalls = 3

// A2: at whichever write or sync the disk fails, and however, what has run had
// its intent on the disk; nothing runs after the failure, the session is over,
// and its issuer is shown why.
func TestNothingRunsWithoutAnIntentOnTheDisk(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, fault := range diskFaults {
		for at := 1; at <= 2*faultCalls; at += faultStep {
			t.Run(fmt.Sprintf("%s at %d", fault.name, at), func(t *testing.T) {
				ran += runUnderFault(t, &failingDisk{fault: fault, at: at})
			})
		}
	}
	t.Logf("%d runs, each with its intent on the disk", ran)
	if ran == 0 {
		t.Error("nothing ran at all")
	}
}

func runUnderFault(t *testing.T, d *failingDisk) (ran int) {
	h := newHostileHalf(t)
	d.on(h)
	id, m, p := h.joined()
	d.arm()
	failing := (d.at + 1) / 2 // the call whose entries it hits
	for n := 1; n <= faultCalls; n++ {
		m.refresh()
		which, body, signature := m.request("test.mark", named(fmt.Sprint("call", n)))
		err := h.TakeCall(m.id, body, signature)
		switch {
		case n > failing:
			if err == nil {
				if r := p.await(t, which); r.Cause == call.Exited {
					t.Errorf("call %d was let run after the failure at call %d", n, failing)
				}
			}
		case err != nil:
			t.Fatal(err)
		case n == failing:
			if r := p.await(t, which); r.Cause != call.AuditFailure {
				t.Errorf("the call whose entry failed ended as %v", r.Cause)
			}
		default:
			if r := p.await(t, which); r.Cause != call.Exited {
				t.Errorf("call %d ended as %v before the failure", n, r.Cause)
			}
		}
	}
	h.calls.Wait()
	if r, err := h.Call(h.ctx, control.CallRequest{Agent: "you", Verb: "test.mark", Params: []control.Param{{Name: "name", Value: "local"}}}, new(bytes.Buffer), new(bytes.Buffer)); err == nil && r.Cause == call.Exited.String() {
		t.Error("a call of the issuer's own was let run after the failure")
	}
	h.wantFaultShown(id, d.fault.err)
	return h.wantIntents(d.intents(t), failing-1+(d.at+1)%2)
}

// wantFaultShown wants the session ended, its issuer told, and nothing new to be
// opened.
func (h *hostileHalf) wantFaultShown(id string, fault error) {
	h.t.Helper()
	list, err := h.ListShares(h.ctx, control.ListRequest{ID: id, All: true})
	if err != nil || len(list) != 1 {
		h.t.Fatal(len(list), err)
	}
	if s := list[0]; s.State != control.StateEnded || !strings.HasPrefix(s.Cause, call.AuditFailure.String()) || !strings.Contains(s.Error, fault.Error()) {
		h.t.Errorf("share list has the session ended as %q, with the error %q", s.Cause, s.Error)
	}
	if status, err := h.Status(h.ctx); err != nil || status.LogOK {
		h.t.Errorf("the log is said to be well: %v", err)
	}
	if _, err := h.OpenShare(h.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: time.Minute}); err == nil {
		h.t.Error("a session was opened that is not in the log")
	}
}

// wantIntents holds what has run to the intents that are on the disk.
func (h *hostileHalf) wantIntents(durable map[string]bool, want int) (ran int) {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "mark.*"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, file := range files {
		if name := strings.Split(filepath.Base(file), ".")[1]; !durable[name] {
			h.t.Errorf("%s ran, and its intent is not on the disk", name)
		}
	}
	if len(files) != want {
		h.t.Errorf("%d calls ran, and %d have to", len(files), want)
	}
	return len(files)
}
