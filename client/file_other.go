//go:build !unix

package client

import "io/fs"

// IsPrivate has nothing to go by here: a file's mode says nothing of its access
// list. The folders that are used belong to the user alone by the system's own
// default.
func IsPrivate(fs.FileInfo) bool { return true }

// syncDir does nothing here: a folder cannot be synced, and need not be.
func syncDir(string) error { return nil }
