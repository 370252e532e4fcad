//go:build unix

package client

import (
	"errors"
	"io/fs"
	"os"
)

// IsPrivate reports whether a file is its owner's alone.
func IsPrivate(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 == 0 }

// syncDir makes a new name in a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
