package checkpoint

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// title is the first line of a checkpoint, and tells it from all other notes.
const title = "openscope/1 checkpoint"

// Checkpoint says how many entries a log had, what the root of their Merkle
// tree (RFC 6962) was, and the hash of the last. Its text is
//
//	openscope/1 checkpoint
//	<entries>
//	<root hash, base64>
//	<hash of the last entry, hex>
//
// and it is a signed note (golang.org/x/mod/sumdb/note).
type Checkpoint struct {
	Size int64
	Root tlog.Hash
	Head [32]byte
	Note string // all of it, with its signature
}

// Sign makes the note.
func (c Checkpoint) Sign(key note.Signer) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n%x\n", title, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Head)
	signed, err := note.Sign(&note.Note{Text: text}, key)
	c.Note = string(signed)
	return c, err
}

// Parse verifies a signed checkpoint.
func Parse(signed string, key note.Verifier) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	c := Checkpoint{Note: signed}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 5 || lines[0] != title {
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
