package client

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/report"
)

func aReceipt(n byte) report.Receipt {
	daemon := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	own := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	r := report.Receipt{
		Daemon: daemon.Public().(ed25519.PublicKey), RID: wire.RendezvousID{7}, Key: own.Public().(ed25519.PublicKey),
		TH2: [32]byte{n}, Came: time.Date(2026, 11, 25, 9, 0, int(n), 0, time.UTC),
	}
	r.Request = call.Request{ID: call.ID{n}, Verb: "test.echo"}.Append(nil)
	r.Signature = call.SignRequest(own, r.RID, r.TH2, r.Request)
	r.End = call.Result{ID: call.ID{n}, Cause: call.Exited}.Append(nil)
	r.EndSig = call.SignResult(daemon, r.RID, r.Hash(), r.End)
	return r
}

func TestReceiptsOfClientsSideBySideAreAllKeptAndForTheirOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	const clients, each = 4, 25
	var working sync.WaitGroup
	for c := range clients {
		working.Go(func() {
			kept := NewReceipts(dir)
			for i := range each {
				if err := kept.Keep(aReceipt(byte(c*each + i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	kept := NewReceipts(dir)
	receipts, broken, err := kept.Of(wire.RendezvousID{7})
	if err != nil || broken != 0 || len(receipts) != clients*each {
		t.Fatalf("%d receipts, %d broken, %v", len(receipts), broken, err)
	}
	seen := make(map[byte]bool)
	for _, r := range receipts {
		seen[r.TH2[0]] = true
	}
	if len(seen) != clients*each {
		t.Errorf("%d of them are different", len(seen))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "receipts", "*"))
	if len(files) != 1 {
		t.Fatalf("%d files", len(files))
	}
	for path, mode := range map[string]os.FileMode{files[0]: 0o600, filepath.Dir(files[0]): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	// One that others may read, or that leads elsewhere, is not written.
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := kept.Keep(aReceipt(1)); err == nil {
		t.Error("a receipt is kept in a file that others may read")
	}
}

func TestALineThatIsNoReceiptIsLeftOutAndCounted(t *testing.T) {
	dir := t.TempDir()
	kept := NewReceipts(dir)
	for n := range byte(3) {
		if err := kept.Keep(aReceipt(n)); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "receipts", "*"))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	torn := append(append(bytes.Clone(lines[0]), lines[1][:len(lines[1])/2]...), '\n')
	forged := aReceipt(1) // whole, and not signed
	forged.EndSig = bytes.Repeat([]byte{1}, ed25519.SignatureSize)
	if torn, err = forged.Append(torn); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], append(torn, lines[2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	receipts, broken, err := kept.Of(wire.RendezvousID{7})
	if err != nil || broken != 2 || len(receipts) != 2 {
		t.Errorf("%d receipts, %d broken, %v", len(receipts), broken, err)
	}
	sessions, err := kept.Sessions()
	if err != nil || len(sessions) != 1 || sessions[0].Receipts != 2 || !sessions[0].Last.Equal(receipts[1].Came) {
		t.Errorf("%+v, %v", sessions, err)
	}
	if other, broken, err := kept.Of(wire.RendezvousID{8}); len(other) != 0 || broken != 0 || err != nil {
		t.Errorf("of a session without any: %d, %d, %v", len(other), broken, err)
	}
}
