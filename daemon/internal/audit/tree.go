package audit

import (
	"golang.org/x/mod/sumdb/tlog"
)

// tree is the Merkle tree (RFC 6962) over the lines of the log, the n-th entry
// being its leaf n-1: as much of it as a checkpoint needs, which is the roots
// of its complete subtrees, the largest first. There is one for each bit that
// is set in size, so at most 63.
type tree struct {
	size int64
	edge []tlog.Hash
}

// add appends a line, without its newline. Where seen is not nil it is told
// every hash of the tree that is final now.
func (t *tree) add(line []byte, seen func(level int, n int64, h tlog.Hash)) {
	h := tlog.RecordHash(line)
	n := t.size
	for level := 0; ; level++ {
		if seen != nil {
			seen(level, n, h)
		}
		if n&1 == 0 {
			break
		}
		last := len(t.edge) - 1
		h = tlog.NodeHash(t.edge[last], h)
		t.edge = t.edge[:last]
		n >>= 1
	}
	t.edge = append(t.edge, h)
	t.size++
}

// root is the hash of the whole tree.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		h, _ := tlog.TreeHash(0, nil) // of nothing; it reads no hash
		return h
	}
	h := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edge[i], h)
	}
	return h
}
