package client

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/report"
)

// Receipts is where a recipient's client keeps what daemons signed: a file per
// session, found by its rendezvous id, with a receipt a line. Nothing is ever
// taken out of it; it is its owner's to delete.
type Receipts struct{ dir string }

// NewReceipts is the receipts below a client's folder for state. It makes
// nothing before there is something to keep.
func NewReceipts(stateDir string) *Receipts {
	return &Receipts{dir: filepath.Join(stateDir, "receipts")}
}

// A receipt has a CALL of at most 16,000 bytes, in base64.
const maxReceipt = 64 << 10

// Path is the file of a session, whether there is one or not.
func (r *Receipts) Path(rid wire.RendezvousID) string {
	return filepath.Join(r.dir, hex.EncodeToString(rid[:]))
}

// Keep adds a receipt, in one write: clients of one session may run side by
// side. It is not synced: what a machine's crash takes is missing, not wrong.
func (r *Receipts) Keep(receipt report.Receipt) error {
	line, err := receipt.Append(nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("keeping a receipt: %w", err)
	}
	path := r.Path(receipt.RID)
	if info, err := os.Lstat(path); err == nil && (!info.Mode().IsRegular() || !IsPrivate(info)) {
		return fmt.Errorf("keeping a receipt: %s: its mode is %v, and must be 0600", path, info.Mode())
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("keeping a receipt: %w", err)
	}
	_, err = file.Write(line)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("keeping a receipt: %w", err)
	}
	return nil
}

// Of is the receipts of a session, in the order they came. Each has been
// verified; broken is how many lines were none, as a crash leaves one.
func (r *Receipts) Of(rid wire.RendezvousID) (receipts []report.Receipt, broken int, err error) {
	file, err := os.Open(r.Path(rid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading receipts: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxReceipt)
	for lines.Scan() {
		receipt, err := report.ParseReceipt(lines.Bytes())
		if err != nil || receipt.RID != rid {
			broken++
			continue
		}
		receipts = append(receipts, receipt)
	}
	if err := lines.Err(); err != nil {
		return nil, broken, fmt.Errorf("reading receipts: %s: %w", file.Name(), err)
	}
	return receipts, broken, nil
}

// Kept is one session that receipts are kept of.
type Kept struct {
	RID         wire.RendezvousID
	Fingerprint [32]byte // of its daemon
	Receipts    int
	First, Last time.Time
}

// Sessions are those that there are receipts of, the newest last.
func (r *Receipts) Sessions() ([]Kept, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading receipts: %w", err)
	}
	var all []Kept
	for _, entry := range entries {
		b, err := hex.DecodeString(entry.Name())
		if err != nil || len(b) != len(wire.RendezvousID{}) || strings.ToLower(entry.Name()) != entry.Name() {
			continue
		}
		receipts, _, err := r.Of(wire.RendezvousID(b))
		if err != nil {
			return nil, err
		}
		if len(receipts) == 0 {
			continue
		}
		first, last := receipts[0], receipts[len(receipts)-1]
		all = append(all, Kept{
			RID: first.RID, Fingerprint: channel.Fingerprint(first.Daemon), Receipts: len(receipts), First: first.Came, Last: last.Came,
		})
	}
	slices.SortStableFunc(all, func(a, b Kept) int { return a.Last.Compare(b.Last) })
	return all, nil
}

// ReportedBy is the fingerprint of the daemon that a report is of.
func ReportedBy(r *report.Report) [32]byte { return channel.Fingerprint(r.Daemon) }
