package report

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire"
	"openscope/wire/checkpoint"
)

// Report is the record of one session, out of a daemon's log.
type Report struct {
	Daemon      ed25519.PublicKey
	RID         wire.RendezvousID
	Session     string // as the issuer's commands name it
	Made        time.Time
	Endorsement string // of the key that signed Checkpoint
	Checkpoint  string
	Entries     []Entry
	// Text is the SHA-256 of what people read of the report, without the block
	// that carries it; zeros where there is nothing else.
	Text      [32]byte
	Signature []byte
}

// Entry is one line of the log, byte for byte, with the proof that it is one.
type Entry struct {
	Line  string
	Proof tlog.RecordProof
}

// MaxEntries bounds a report: more than a session can make in its time.
const MaxEntries = 1 << 20

// Sign signs the report with the daemon's identity.
func (r *Report) Sign(identity ed25519.PrivateKey) {
	r.Daemon = identity.Public().(ed25519.PublicKey)
	r.Signature = ed25519.Sign(identity, r.signedBytes())
}

// signedBytes are parts, and not JSON: there is one way to write them.
func (r *Report) signedBytes() []byte {
	parts := [][]byte{
		[]byte("openscope/1 report"), r.RID[:], binary.BigEndian.AppendUint64(nil, uint64(r.Made.Unix())), []byte(r.Session),
		[]byte(r.Endorsement), []byte(r.Checkpoint), r.Text[:],
	}
	for _, e := range r.Entries {
		parts = append(parts, []byte(e.Line))
	}
	return wire.LP(parts...)
}

// What a report can fail by. Each is a reason not to believe a word of it.
var (
	ErrSignature  = errors.New("it is not what the daemon signed")
	ErrCheckpoint = errors.New("its checkpoint is not one of the daemon's log")
	ErrProof      = errors.New("an entry of it is not in the daemon's log")
)

// Verify holds the report to the signature of the daemon it names, the
// checkpoint to that daemon's key, and every line to the checkpoint. Whether it
// is the daemon one means, and tells the truth, is for [Check].
func (r *Report) Verify() error {
	if len(r.Daemon) != ed25519.PublicKeySize || !ed25519.Verify(r.Daemon, r.signedBytes(), r.Signature) {
		return ErrSignature
	}
	endorsed, err := checkpoint.ParseEndorsement(r.Endorsement)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if !endorsed.Daemon.Equal(r.Daemon) {
		return fmt.Errorf("%w: another daemon endorsed its key", ErrCheckpoint)
	}
	key, err := endorsed.Verifier()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	point, err := checkpoint.Parse(r.Checkpoint, key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	return r.verifyEntries(point)
}

func (r *Report) verifyEntries(point checkpoint.Checkpoint) error {
	last := uint64(0)
	for i, e := range r.Entries {
		f, err := readLine(e.Line)
		if err != nil {
			return fmt.Errorf("%w: number %d of the report: %w", ErrProof, i+1, err)
		}
		if f.Seq <= last || f.Seq > uint64(point.Size) {
			return fmt.Errorf("%w: entry %d stands after %d, in a log of %d", ErrProof, f.Seq, last, point.Size)
		}
		last = f.Seq
		if err := tlog.CheckRecord(e.Proof, point.Size, point.Root, int64(f.Seq-1), tlog.RecordHash([]byte(e.Line))); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrProof, f.Seq, err)
		}
		if f.Session != r.Session && f.Parent != r.Session {
			return fmt.Errorf("%w: entry %d is of another session", ErrProof, f.Seq)
		}
	}
	return nil
}
