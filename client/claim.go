package client

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"openscope/wire"
)

// A bearer session belongs to whoever's FINISHED comes first. The client keeps
// the key it claims with, so that it is let in again (wire/README.md §9): one
// file per session, made before the first FINISHED is sent, dropped some time
// after the session's hard limit.
//
//	text of: hard limit 8 (Unix seconds) | seed 32
const (
	claimPrefix = "openscope-claim-1"
	claimSize   = 8 + ed25519.SeedSize
	claimMargin = time.Hour // the two clocks may differ
)

// errClaimed says that another process on this machine made the claim while
// this one was shaking hands; its file has the key to use.
var errClaimed = errors.New("claimed by another process meanwhile")

// claim returns the session's key, and what makes a new one durable: nil when
// it is already.
func (cfg *Config) claim() (wire.SigningKey, func() error, error) {
	dir := filepath.Join(cfg.StateDir, "claims")
	path := filepath.Join(dir, hex.EncodeToString(cfg.Handle.RID[:]))
	seed, _, err := readClaim(path)
	if err == nil {
		return wire.SigningKeyOf(ed25519.NewKeyFromSeed(seed)), nil, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return wire.SigningKey{}, nil, fmt.Errorf("reading the claim: %w", err)
	}
	seed = make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(cfg.Rand, seed); err != nil {
		return wire.SigningKey{}, nil, fmt.Errorf("drawing the claim's key: %w", err)
	}
	write := func() error {
		dropOldClaims(dir, time.Now())
		if err := writeClaim(path, cfg.Handle.HardLimit, seed); err != nil {
			return fmt.Errorf("writing the claim: %w", err)
		}
		return nil
	}
	return wire.SigningKeyOf(ed25519.NewKeyFromSeed(seed)), write, nil
}

func readClaim(path string) (seed []byte, hardLimit time.Time, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() || !IsPrivate(info) {
		return nil, time.Time{}, fmt.Errorf("%s: its mode is %v, and must be 0600", path, info.Mode())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	b, err := wire.DecodeText(claimPrefix, string(text), 256)
	if err != nil || len(b) != claimSize {
		return nil, time.Time{}, fmt.Errorf("%s: not a claim", path)
	}
	return b[8:], time.Unix(int64(binary.BigEndian.Uint64(b)), 0), nil
}

// writeClaim makes a claim file, whole and on the disk, or finds one there.
func writeClaim(path string, hardLimit time.Time, seed []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".claim-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	payload := append(binary.BigEndian.AppendUint64(nil, uint64(hardLimit.Unix())), seed...)
	_, err = io.WriteString(tmp, wire.EncodeText(claimPrefix, payload)+"\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return errClaimed
	} else if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// dropOldClaims removes what no session needs any more; it is tidiness only.
func dropOldClaims(dir string, now time.Time) {
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		if _, hardLimit, err := readClaim(name); err == nil && now.After(hardLimit.Add(claimMargin)) {
			_ = os.Remove(name)
		}
	}
}
