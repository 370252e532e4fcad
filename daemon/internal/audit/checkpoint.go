package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"os"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire/checkpoint"
)

// A checkpoint (wire/checkpoint) says, signed, how many entries the log had and
// what the root of their Merkle tree was: what cuts the end off, or rewrites the
// log from some entry on, contradicts it. Checkpoints stand in a
// file of their own beside the log, one JSON object a line, appended and synced
// like the log's lines:
//
//	{"note":"…","edge":["<base64>",…]}
//
// edge is the roots of the tree's complete subtrees, so that a daemon that
// starts need not read the whole log to go on; they are believed as far as they
// give the signed root. The first line is what the log's owner wants to say of
// the key, {"key":"…"}.
//
// One is made every [checkpointEvery] entries, or when something is appended
// and the last is [checkpointAfter] old, when a file is full, when the log is
// closed, and when it is asked for: a signature and a sync for at least so many
// entries or seconds, and a session's end is never long without one.

const (
	checkpointEvery = 256
	checkpointAfter = 10 * time.Second
	// maxCheckpoint bounds a line of the file: 63 hashes and a note.
	maxCheckpoint = 16 << 10
)

// ErrOtherKey means that the checkpoints beside a log were not signed with the
// key it is opened with. Such a log is not carried on: moved away with its
// checkpoints it stays what it is, and a new one can begin.
var ErrOtherKey = errors.New("the log's checkpoints are signed by another key")

// CheckpointsOf is the file with the checkpoints of the log at path.
func CheckpointsOf(path string) string { return path + ".checkpoints" }

type checkpointLine struct {
	Key  string   `json:"key,omitempty"`
	Note string   `json:"note,omitempty"`
	Edge []string `json:"edge,omitempty"`
}

// Checkpoint makes what is on the disk the subject of a checkpoint, unless one
// is, and returns it. A log without a signer has none.
func (l *Log) Checkpoint() (checkpoint.Checkpoint, error) {
	if l.signer == nil {
		return checkpoint.Checkpoint{}, errors.New("making a checkpoint: the log has no key for it")
	}
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err == nil {
		err = l.checkpoint()
	}
	if err != nil {
		l.fail(err)
		return checkpoint.Checkpoint{}, fmt.Errorf("making a checkpoint: %w", err)
	}
	return l.last, nil
}

// checkpointDue reports whether it is time for one. The turn is held.
func (l *Log) checkpointDue() bool {
	return l.signer != nil && l.tree.size > l.last.Size &&
		(l.tree.size-l.last.Size >= checkpointEvery || l.boot()-l.lastMade >= checkpointAfter)
}

// checkpoint signs the tree as it is. The turn is held.
func (l *Log) checkpoint() error {
	if l.signer == nil || l.tree.size == l.last.Size && l.last.Note != "" {
		return nil
	}
	c, err := checkpoint.Checkpoint{Size: l.tree.size, Root: l.tree.root(), Head: l.written}.Sign(l.signer)
	if err != nil {
		return err
	}
	line := checkpointLine{Note: c.Note}
	for _, h := range l.tree.edge {
		line.Edge = append(line.Edge, base64.StdEncoding.EncodeToString(h[:]))
	}
	if err := l.writeCheckpoint(line); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	l.last = c
	l.lastMade = l.boot()
	return nil
}

func (l *Log) writeCheckpoint(line checkpointLine) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if err := writeAll(l.points, append(text, '\n')); err != nil {
		return err
	}
	return l.points.Sync()
}

// openCheckpoints opens the file, cuts off what a crash tore, and takes the
// tree up where the last checkpoint left it. It returns how many entries there
// were before the first.
func (l *Log) openCheckpoints(cfg Config) (unsigned uint64, err error) {
	file, err := cfg.Open(CheckpointsOf(l.path))
	if err != nil {
		return 0, err
	}
	l.points = file
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	end, err := scanBack(file, info.Size(), 1)
	if err != nil {
		return 0, err
	}
	if end < info.Size() {
		if err := file.Truncate(end); err != nil {
			return 0, err
		}
	}
	if end == 0 {
		if err := l.writeCheckpoint(checkpointLine{Key: cfg.KeyNote}); err != nil {
			return 0, err
		}
		return l.next.Seq, l.resume(checkpointLine{})
	}
	last, err := l.lastCheckpoint(file, end, cfg.KeyNote)
	if err != nil {
		return 0, err
	}
	return 0, l.resume(last)
}

// lastCheckpoint is the file's last line, if the first says the key that the
// log is opened with.
func (l *Log) lastCheckpoint(file File, end int64, key string) (last checkpointLine, err error) {
	if said, err := KeyNote(l.path); err != nil || said != key {
		return last, errors.Join(ErrOtherKey, err)
	}
	start, err := scanBack(file, end, 2)
	if err != nil {
		return last, err
	}
	if err := json.NewDecoder(io.NewSectionReader(file, start, end-start)).Decode(&last); err != nil {
		return last, fmt.Errorf("%s: the last line is not a checkpoint", CheckpointsOf(l.path))
	}
	return last, nil
}

// resume makes the tree that of the whole log.
func (l *Log) resume(last checkpointLine) error {
	if last.Note != "" {
		c, err := checkpoint.Parse(last.Note, l.verifier)
		if err != nil {
			return fmt.Errorf("%s: %w", CheckpointsOf(l.path), err)
		}
		if uint64(c.Size) > l.next.Seq {
			return &BadEntry{Line: int(l.next.Seq + 1), Reason: fmt.Sprintf("the log ends here, and had %d entries when a checkpoint was signed", c.Size)}
		}
		if t, ok := treeOf(c, last.Edge); ok {
			l.last, l.tree = c, t
		}
	}
	l.lastMade = l.boot()
	previous := l.last.Head
	for line, err := range linesFrom(l.path, uint64(l.tree.size)+1) {
		if err != nil {
			return err
		}
		if line.Prev != previous {
			return &BadEntry{Line: int(line.Seq), Seq: line.Seq, Reason: "it does not follow from the entry the last checkpoint ends with"}
		}
		previous = line.Hash
		l.tree.add(line.Line(), nil)
	}
	if uint64(l.tree.size) != l.next.Seq {
		return fmt.Errorf("the log has %d entries, and its last is number %d", l.tree.size, l.next.Seq)
	}
	return nil
}

// treeOf is the tree with this edge, if it has the checkpoint's root.
func treeOf(c checkpoint.Checkpoint, edge []string) (tree, bool) {
	t := tree{size: c.Size}
	for _, text := range edge {
		h, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(h) != tlog.HashSize {
			return tree{}, false
		}
		t.edge = append(t.edge, tlog.Hash(h))
	}
	return t, len(t.edge) == bits.OnesCount64(uint64(t.size)) && t.root() == c.Root
}

// Checkpoints yields what the file at path says: the key note it begins with,
// and each checkpoint, in their order, with its signature unverified. A torn
// last line is left out.
func readCheckpoints(path string) iter.Seq2[checkpointLine, error] {
	return func(yield func(checkpointLine, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(checkpointLine{}, err)
			return
		}
		defer file.Close()
		lines := bufio.NewReaderSize(file, maxCheckpoint)
		for number := 1; ; number++ {
			text, err := lines.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				return
			}
			var line checkpointLine
			if err == nil {
				dec := json.NewDecoder(bytes.NewReader(text))
				dec.DisallowUnknownFields()
				err = dec.Decode(&line)
			}
			if err != nil {
				err = fmt.Errorf("%s:%d: not a checkpoint", path, number)
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// KeyNote is what the checkpoints of the log at path say of their key.
func KeyNote(path string) (string, error) {
	for line, err := range readCheckpoints(CheckpointsOf(path)) {
		return line.Key, err
	}
	return "", fmt.Errorf("%s: empty", CheckpointsOf(path))
}
