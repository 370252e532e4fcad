package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A checkpoint says, signed, how many entries the log had and what the root of
// their Merkle tree was: what cuts the end off, or rewrites the log from some
// entry on, contradicts it. Its text is
//
//	openscope/1 checkpoint
//	<entries>
//	<root hash, base64>
//	<hash of the last entry, hex>
//
// and it is a signed note (golang.org/x/mod/sumdb/note). Checkpoints stand in a
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
	checkpointTitle = "openscope/1 checkpoint"
	// maxCheckpoint bounds a line of the file: 63 hashes and a note.
	maxCheckpoint = 16 << 10
)

// CheckpointsOf is the file with the checkpoints of the log at path.
func CheckpointsOf(path string) string { return path + ".checkpoints" }

// Checkpoint is one that was made: its signed text, and what that says.
type Checkpoint struct {
	Note string
	Size int64
	Root tlog.Hash
	Head [32]byte
}

type checkpointLine struct {
	Key  string   `json:"key,omitempty"`
	Note string   `json:"note,omitempty"`
	Edge []string `json:"edge,omitempty"`
}

func checkpointText(t *tree, head [32]byte) string {
	root := t.root()
	return fmt.Sprintf("%s\n%d\n%s\n%x\n", checkpointTitle, t.size, base64.StdEncoding.EncodeToString(root[:]), head)
}

// ParseCheckpoint verifies a signed checkpoint.
func ParseCheckpoint(signed string, key note.Verifier) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	c := Checkpoint{Note: signed}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 5 || lines[0] != checkpointTitle {
		return Checkpoint{}, errors.New("reading a checkpoint: it is a note about something else")
	}
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	head, err3 := hex.DecodeString(lines[3])
	if err := errors.Join(err, err2, err3); err != nil || c.Size < 0 || len(root) != len(c.Root) || len(head) != len(c.Head) {
		return Checkpoint{}, errors.New("reading a checkpoint: its numbers are none")
	}
	c.Root, c.Head = tlog.Hash(root), [32]byte(head)
	return c, nil
}

// Checkpoint makes what is on the disk the subject of a checkpoint, unless one
// is, and returns it. A log without a signer has none.
func (l *Log) Checkpoint() (Checkpoint, error) {
	if l.signer == nil {
		return Checkpoint{}, errors.New("making a checkpoint: the log has no key for it")
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
		return Checkpoint{}, fmt.Errorf("making a checkpoint: %w", err)
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
	text := checkpointText(&l.tree, l.written)
	signed, err := note.Sign(&note.Note{Text: text}, l.signer)
	if err != nil {
		return err
	}
	line := checkpointLine{Note: string(signed)}
	for _, h := range l.tree.edge {
		line.Edge = append(line.Edge, base64.StdEncoding.EncodeToString(h[:]))
	}
	if err := l.writeCheckpoint(line); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	l.last = Checkpoint{Note: string(signed), Size: l.tree.size, Root: l.tree.root(), Head: l.written}
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
// tree up where the last checkpoint left it.
func (l *Log) openCheckpoints(cfg Config) error {
	file, err := cfg.Open(CheckpointsOf(l.path))
	if err != nil {
		return err
	}
	l.points = file
	info, err := file.Stat()
	if err != nil {
		return err
	}
	end, err := scanBack(file, info.Size(), 1)
	if err != nil {
		return err
	}
	if end < info.Size() {
		if err := file.Truncate(end); err != nil {
			return err
		}
	}
	var last checkpointLine
	if end > 0 {
		start, err := scanBack(file, end, 2)
		if err != nil {
			return err
		}
		if err := json.NewDecoder(io.NewSectionReader(file, start, end-start)).Decode(&last); err != nil {
			return fmt.Errorf("%s: the last line is not a checkpoint", CheckpointsOf(l.path))
		}
	} else if err := l.writeCheckpoint(checkpointLine{Key: cfg.KeyNote}); err != nil {
		return err
	}
	return l.resume(last)
}

// resume makes the tree that of the whole log.
func (l *Log) resume(last checkpointLine) error {
	if last.Note != "" {
		c, err := ParseCheckpoint(last.Note, l.verifier)
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
func treeOf(c Checkpoint, edge []string) (tree, bool) {
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
