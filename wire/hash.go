package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Protocol names the one suite of this version; it begins every hash, so that
// another suite's transcript can never be mistaken for this one's (§1).
const Protocol = "openscope/1 e2e XWing+X25519 HKDF-SHA256 ChaCha20Poly1305 Ed25519"

// AppendLP appends each part prefixed by its length, 4 bytes big-endian: the
// encoding under which no two lists of parts look alike (§1).
func AppendLP(dst []byte, parts ...[]byte) []byte {
	for _, part := range parts {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
		dst = append(dst, part...)
	}
	return dst
}

// LP is [AppendLP] into a new slice.
func LP(parts ...[]byte) []byte {
	size := 0
	for _, part := range parts {
		size += 4 + len(part)
	}
	return AppendLP(make([]byte, 0, size), parts...)
}

// Hash is H of §1: SHA-256 over the length-prefixed protocol name, label and
// parts. Every use has its own label, listed in the specification. The parts
// go straight into the hash: a handshake hashes kilobytes before it trusts anybody.
func Hash(label string, parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	writeLP(h, []byte(Protocol))
	writeLP(h, []byte(label))
	for _, part := range parts {
		writeLP(h, part)
	}
	h.Sum(sum[:0])
	return sum
}

func writeLP(h hash.Hash, part []byte) {
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(part)))
	h.Write(size[:])
	h.Write(part)
}
