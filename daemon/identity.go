package daemon

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"openscope/daemon/internal/policy"
	"openscope/wire"
)

// identityPrefix starts the text of a daemon's identity key.
const identityPrefix = "OPENSCOPE-DAEMON-KEY-1"

// NewIdentityFile draws a daemon identity (wire/README.md §2) and writes it to
// path, mode 0600. It never overwrites: an identity that changes locks every
// recipient out.
func NewIdentityFile(path string, rand io.Reader) error {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return fmt.Errorf("drawing an identity: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the identity: %w", err)
	}
	_, err = file.WriteString(strings.ToUpper(wire.EncodeText(strings.ToLower(identityPrefix), seed)) + "\n")
	return errors.Join(err, file.Sync(), file.Close())
}

// readIdentity reads the key that NewIdentityFile wrote.
func readIdentity(path string) (wire.SigningKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return wire.SigningKey{}, fmt.Errorf("reading the identity: %w", err)
	}
	seed, err := wire.DecodeText(strings.ToLower(identityPrefix), strings.ToLower(string(text)), 256)
	if err != nil || len(seed) != ed25519.SeedSize {
		return wire.SigningKey{}, fmt.Errorf("reading the identity: %s: not a daemon identity key", path)
	}
	return wire.SigningKeyOf(ed25519.NewKeyFromSeed(seed)), nil
}

// identityText is the identity as its file has it, to be looked for in output.
func identityText(key wire.SigningKey) []byte {
	return []byte(strings.ToUpper(wire.EncodeText(strings.ToLower(identityPrefix), key.Reveal().Seed())))
}

// readSecret reads a protected file that nobody else may even read.
func readSecret(path string) ([]byte, error) {
	data, err := policy.ReadProtected(path, os.Geteuid())
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("mode %04o lets others read a secret; run: chmod 600 %s", info.Mode().Perm(), path)}
	}
	return data, nil
}
