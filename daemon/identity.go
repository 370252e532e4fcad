package daemon

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"openscope/daemon/internal/policy"
	"openscope/wire"
	"openscope/wire/channel"
)

// identityPrefix starts the text of a daemon's identity key.
const identityPrefix = "OPENSCOPE-DAEMON-KEY-1"

// NewIdentityFile draws a daemon identity (wire/README.md §2) and writes it to
// path, mode 0600. It never overwrites: an identity that changes locks every
// recipient out.
func NewIdentityFile(path string, rand io.Reader) error {
	if err := newKeyFile(path, identityPrefix, rand); err != nil {
		return fmt.Errorf("making the identity: %w", err)
	}
	return nil
}

// readIdentity reads the key that NewIdentityFile wrote.
func readIdentity(path string) (wire.SigningKey, error) {
	key, err := readKeyFile(path, identityPrefix)
	if err != nil {
		return key, fmt.Errorf("reading the identity: %w", err)
	}
	return key, nil
}

// Fingerprint is that of the identity in a daemon's folder for state, as who
// may read the key can tell without the daemon.
func Fingerprint(stateDir string) ([32]byte, error) {
	key, err := readIdentity(filepath.Join(stateDir, "identity.key"))
	if err != nil {
		return [32]byte{}, err
	}
	return channel.Fingerprint(key.Public()), nil
}

// newKeyFile draws a key and writes it to a file that there is not yet, mode
// 0600, whole and on the disk or not at all.
func newKeyFile(path, prefix string, rand io.Reader) error {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return fmt.Errorf("drawing a key: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	_, err = file.WriteString(keyText(prefix, seed) + "\n")
	err = errors.Join(err, file.Sync(), file.Close(), syncFolder(filepath.Dir(path)))
	if err != nil {
		return errors.Join(fmt.Errorf("writing the key: %w", err), os.Remove(path))
	}
	return nil
}

// syncFolder makes a new name in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func readKeyFile(path, prefix string) (wire.SigningKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return wire.SigningKey{}, err
	}
	seed, err := wire.DecodeText(strings.ToLower(prefix), strings.ToLower(string(text)), 256)
	if err != nil || len(seed) != ed25519.SeedSize {
		return wire.SigningKey{}, fmt.Errorf("%s: not a key that begins with %s", path, prefix)
	}
	return wire.SigningKeyOf(ed25519.NewKeyFromSeed(seed)), nil
}

// keyText is a key as its file has it.
func keyText(prefix string, seed []byte) string {
	return strings.ToUpper(wire.EncodeText(strings.ToLower(prefix), seed))
}

// readSecret reads a protected file that nobody else may even read.
func readSecret(path string) ([]byte, error) { return policy.ReadSecret(path, os.Geteuid()) }
