package audit

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire/checkpoint"
)

// Extract is some of the log's entries, each with the proof that it stands in
// the log of the checkpoint (RFC 6962).
type Extract struct {
	Checkpoint checkpoint.Checkpoint
	Records    []Record
	Proofs     []tlog.RecordProof
}

// Extract makes a checkpoint and proves to it the entries that are wanted, at
// most so many. It reads the log twice: once for the entries, and once for the
// hashes that their proofs are made of, which are then few.
func (l *Log) Extract(ctx context.Context, most int, wanted func(Record) bool) (Extract, error) {
	var x Extract
	var err error
	if x.Checkpoint, err = l.Checkpoint(); err != nil {
		return x, err
	}
	err = l.upTo(ctx, x.Checkpoint.Size, func(r Record) error {
		if !wanted(r) {
			return nil
		}
		if x.Records = append(x.Records, r); len(x.Records) > most {
			return fmt.Errorf("extracting entries: there are more than %d", most)
		}
		return nil
	})
	if err != nil {
		return x, err
	}
	hashes := make(hashSet)
	for _, r := range x.Records {
		if _, err := tlog.ProveRecord(x.Checkpoint.Size, int64(r.Seq-1), needed{hashes}); err != nil {
			return x, fmt.Errorf("extracting entry %d: %w", r.Seq, err)
		}
	}
	var t tree
	err = l.upTo(ctx, x.Checkpoint.Size, func(r Record) error {
		t.add(r.Line(), hashes.keep)
		return nil
	})
	if err != nil {
		return x, err
	}
	if t.size != x.Checkpoint.Size || t.root() != x.Checkpoint.Root {
		return x, fmt.Errorf("extracting entries: the log is not the one that was written")
	}
	for _, r := range x.Records {
		proof, err := tlog.ProveRecord(x.Checkpoint.Size, int64(r.Seq-1), hashes)
		if err != nil {
			return x, fmt.Errorf("extracting entry %d: %w", r.Seq, err)
		}
		x.Proofs = append(x.Proofs, proof)
	}
	return x, nil
}

// upTo reads the log up to an entry, in order.
func (l *Log) upTo(ctx context.Context, size int64, each func(Record) error) error {
	for record, err := range l.tailFrom(ctx, 1, false) {
		if err != nil {
			return err
		}
		if record.Seq > uint64(size) {
			break
		}
		if err := each(record); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hashSet is the hashes of the tree that proofs are made of, by the index that
// tlog stores them under. One that is wanted and not yet known is zero.
type hashSet map[int64]tlog.Hash

func (s hashSet) keep(level int, n int64, h tlog.Hash) {
	index := tlog.StoredHashIndex(level, n)
	if _, wanted := s[index]; wanted {
		s[index] = h
	}
}

// ReadHashes implements tlog.HashReader.
func (s hashSet) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := s[index]
		if !ok {
			return nil, fmt.Errorf("hash %d of the tree is not known", index)
		}
		hashes[i] = h
	}
	return hashes, nil
}

// needed enters what is asked for into a set, and answers with nothing.
type needed struct{ set hashSet }

// ReadHashes implements tlog.HashReader.
func (n needed) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	for _, index := range indexes {
		n.set[index] = tlog.Hash{}
	}
	return make([]tlog.Hash, len(indexes)), nil
}
