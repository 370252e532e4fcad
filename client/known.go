package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// KnownDaemons are the daemons a person has confirmed, by the names they gave
// them: a text file with a name and a fingerprint in hex on each line.
type KnownDaemons struct {
	path  string
	lines []knownDaemon
}

type knownDaemon struct {
	name        string
	fingerprint [32]byte
}

// ErrChanged says that a daemon's name belongs to another fingerprint. There is
// no way around it but to take the old one out of the file.
var ErrChanged = errors.New("the daemon is another one than the name was given to")

// maxKnown bounds the file.
const maxKnown = 1 << 20

// OpenKnownDaemons reads the file; a missing one is empty.
func OpenKnownDaemons(path string) (*KnownDaemons, error) {
	k := &KnownDaemons{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the known daemons: %w", err)
	}
	if len(data) > maxKnown {
		return nil, fmt.Errorf("reading the known daemons: %s: more than %d bytes", path, maxKnown)
	}
	for i, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		var fp []byte
		if len(fields) == 2 && CheckDaemonName(fields[0]) == nil {
			fp, _ = hex.DecodeString(fields[1])
		}
		if len(fp) != 32 {
			return nil, fmt.Errorf("%s:%d: not a name and a fingerprint", path, i+1)
		}
		k.lines = append(k.lines, knownDaemon{name: fields[0], fingerprint: [32]byte(fp)})
	}
	return k, nil
}

// CheckDaemonName refuses what a line of the file could not hold.
func CheckDaemonName(name string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("a daemon's name has 1 to 64 letters, digits, dots, dashes and underscores")
	}
	return nil
}

// Name is the name of a fingerprint that was confirmed before.
func (k *KnownDaemons) Name(fp [32]byte) (string, bool) {
	i := slices.IndexFunc(k.lines, func(d knownDaemon) bool { return d.fingerprint == fp })
	if i < 0 {
		return "", false
	}
	return k.lines[i].name, true
}

// Check reports whether the name is known with this fingerprint: ErrChanged if
// it is known with another.
func (k *KnownDaemons) Check(name string, fp [32]byte) (known bool, err error) {
	i := slices.IndexFunc(k.lines, func(d knownDaemon) bool { return d.name == name })
	switch {
	case i < 0:
		return false, nil
	case k.lines[i].fingerprint != fp:
		return false, ErrChanged
	}
	return true, nil
}

// Remember writes a confirmed daemon into the file, whole.
func (k *KnownDaemons) Remember(name string, fp [32]byte) error {
	if err := CheckDaemonName(name); err != nil {
		return err
	}
	if known, err := k.Check(name, fp); known || err != nil {
		return err
	}
	k.lines = append(k.lines, knownDaemon{name: name, fingerprint: fp})
	var text strings.Builder
	for _, d := range k.lines {
		fmt.Fprintf(&text, "%s %x\n", d.name, d.fingerprint)
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("remembering the daemon: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(k.path), ".known-*")
	if err != nil {
		return fmt.Errorf("remembering the daemon: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text.String())
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("remembering the daemon: %w", err)
	}
	if err := os.Rename(tmp.Name(), k.path); err != nil {
		return fmt.Errorf("remembering the daemon: %w", err)
	}
	return nil
}
