package executor

import (
	"bytes"
	"io"
	"strings"
	"sync/atomic"
)

// A credential shorter than this is not looked for: it would be found in
// everything.
const minSecret = 8

// suppressed stands where a credential stood.
var suppressed = []byte("[suppressed]")

// Secrets are the daemon's own credentials, ready to be looked for in output:
// an Aho-Corasick automaton over their bytes. The zero of it (nil) has none. It
// does not change, prints nothing of what is in it, and is safe for concurrent
// use.
type Secrets struct {
	nodes  []node
	begins [256]bool // a credential begins with this byte
}

// node is what has been read so far: the longest end of it that begins some
// credential.
type node struct {
	next  map[byte]int32 // few: most nodes have one
	fail  int32          // the next shorter such end
	depth int32          // how many bytes it is
	match int32          // the longest credential that ends here, or 0
}

// NewSecrets takes credentials as they could be printed. Of one that has
// several words or lines (a scheme before a token, the lines of a key file)
// each that is long enough is looked for by itself. Without any, it is nil.
func NewSecrets(credentials ...[]byte) *Secrets {
	s := &Secrets{nodes: []node{{}}}
	for _, c := range credentials {
		for _, word := range bytes.Fields(c) {
			if len(word) >= minSecret && !isFraming(word) {
				s.add(word)
			}
		}
	}
	if len(s.nodes) == 1 {
		return nil
	}
	s.link()
	return s
}

// isFraming reports whether a word says only what kind of key file this is: what
// stands around every key in PEM, and how each unlocked OpenSSH key begins.
func isFraming(word []byte) bool {
	return bytes.HasPrefix(word, []byte("-----")) || bytes.HasSuffix(word, []byte("-----")) ||
		bytes.HasPrefix(word, []byte("b3BlbnNzaC1rZXktdjEA"))
}

// String prints nothing of the credentials.
func (s *Secrets) String() string { return "(credentials)" }

// GoString is for the verb that would show the fields.
func (s *Secrets) GoString() string { return s.String() }

func (s *Secrets) add(word []byte) {
	at := int32(0)
	s.begins[word[0]] = true
	for _, c := range word {
		to, ok := s.nodes[at].next[c]
		if !ok {
			to = int32(len(s.nodes))
			s.nodes = append(s.nodes, node{depth: s.nodes[at].depth + 1})
			if s.nodes[at].next == nil {
				s.nodes[at].next = make(map[byte]int32, 1)
			}
			s.nodes[at].next[c] = to
		}
		at = to
	}
	s.nodes[at].match = int32(len(word))
}

// link finds where to go on when the next byte does not fit, breadth first: a
// node's fail is always of lesser depth.
func (s *Secrets) link() {
	queue := []int32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c, to := range s.nodes[at].next {
			if at != 0 {
				s.nodes[to].fail = s.step(s.nodes[at].fail, c)
			}
			if s.nodes[to].match == 0 {
				s.nodes[to].match = s.nodes[s.nodes[to].fail].match
			}
			queue = append(queue, to)
		}
	}
}

func (s *Secrets) step(at int32, c byte) int32 {
	for {
		if to, ok := s.nodes[at].next[c]; ok {
			return to
		}
		if at == 0 {
			return 0
		}
		at = s.nodes[at].fail
	}
}

// Filter passes output on without the credentials in it. What could be the
// beginning of one is held back until it is known to be none, or until
// [Filter.Flush]: never more than the longest credential. It belongs to one
// goroutine.
type Filter struct {
	dst     io.Writer
	secrets *Secrets
	at      int32        // the node of what is held
	held    []byte       // the bytes that at stands for
	out     []byte       // reused
	found   atomic.Int64 // a stuck writer is left behind, and not waited for
}

// NewFilter writes to dst what is no credential.
func NewFilter(dst io.Writer, secrets *Secrets) *Filter { return &Filter{dst: dst, secrets: secrets} }

// Found is how many credentials were suppressed.
func (f *Filter) Found() int { return int(f.found.Load()) }

// Write implements [io.Writer]. It reports all of p as written, or an error of
// what stands behind.
func (f *Filter) Write(p []byte) (int, error) {
	if f.secrets == nil {
		return f.dst.Write(p)
	}
	f.out = f.out[:0]
	nodes := f.secrets.nodes
	for i := 0; i < len(p); {
		if f.at == 0 {
			// Most output is far from any credential: skip to where one may begin.
			n := f.secrets.skip(p[i:])
			f.out = append(f.out, p[i:i+n]...)
			if i += n; i == len(p) {
				break
			}
		}
		f.held = append(f.held, p[i])
		f.at = f.secrets.step(f.at, p[i])
		i++
		if n := int(nodes[f.at].match); n > 0 {
			f.out = append(append(f.out, f.held[:len(f.held)-n]...), suppressed...)
			f.at, f.held = 0, f.held[:0]
			f.found.Add(1)
			continue
		}
		if free := len(f.held) - int(nodes[f.at].depth); free > 0 {
			f.out = append(f.out, f.held[:free]...)
			f.held = append(f.held[:0], f.held[free:]...)
		}
	}
	if len(f.out) == 0 {
		return len(p), nil
	}
	if _, err := f.dst.Write(f.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// skip is how many bytes at the start of p begin no credential.
func (s *Secrets) skip(p []byte) int {
	for i, c := range p {
		if s.begins[c] {
			return i
		}
	}
	return len(p)
}

// Flush passes on what was held back: no more output will come, so that it was
// the beginning of nothing.
func (f *Filter) Flush() error {
	if len(f.held) == 0 {
		return nil
	}
	_, err := f.dst.Write(f.held)
	f.at, f.held = 0, nil
	return err
}

// Credentials are those of every target that has them in a file of its own, as
// far as they can be read now: what cannot be read cannot be printed by us.
// {issuer} in a name stands for issuer; a name with it is left out where issuer
// is empty.
func (s *SSH) Credentials(issuer string) [][]byte {
	if s == nil {
		return nil
	}
	var all [][]byte
	for _, t := range s.targets {
		path := t.KeyFile
		if strings.Contains(path, issuerMark) {
			if !isAccountName(issuer) {
				continue
			}
			path = strings.ReplaceAll(path, issuerMark, issuer)
		}
		all = append(all, readWhole(path)...)
	}
	return all
}

// Credentials are the values of every target's secret headers.
func (h *HTTP) Credentials() [][]byte {
	if h == nil {
		return nil
	}
	var all [][]byte
	for _, t := range h.targets {
		for _, path := range t.SecretHeaders {
			all = append(all, readWhole(path)...)
		}
	}
	return all
}

// readWhole reads a file to be looked for; a missing one is none.
func readWhole(path string) [][]byte {
	f, err := openNoLinks(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil
	}
	return [][]byte{data}
}
