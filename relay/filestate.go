package relay

import (
	"io/fs"
	"syscall"
)

func stateOf(info fs.FileInfo) fileState {
	s := fileState{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
