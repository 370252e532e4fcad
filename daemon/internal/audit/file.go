package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is what the log needs of its file. [OpenFile] makes the real one; tests
// wrap it to make it fail.
type File interface {
	io.Writer   // at the end, whatever else happened to the file
	io.ReaderAt // safe beside Write
	Stat() (fs.FileInfo, error)
	// Sync returns once the file's content, and the size needed to read it
	// back, are on the disk.
	Sync() error
	Truncate(size int64) error
	Close() error
}

// ErrLocked means that another process has the log open for writing.
var ErrLocked = errors.New("another process is writing the log")

// OpenFile opens the log's file for appending, and makes it with mode 0600
// where there is none. It refuses a symbolic link, anything but a regular
// file, one that belongs to somebody else or that others may write, and one
// that another process has opened this way (ErrLocked).
func OpenFile(path string) (File, error) {
	const flags = os.O_RDWR | os.O_APPEND | os.O_CREATE | syscall.O_NOFOLLOW
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := claim(f); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return disk{f}, nil
}

// claim checks whose file it is, and takes the lock that lives as long as the
// descriptor.
func claim(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to uid %d, not to the daemon's own", stat.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("its mode %04o lets others write it", info.Mode().Perm())
	}
	err = control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// disk is a File on a disk.
type disk struct{ *os.File }

// Sync leaves out what fsync does beyond: the times in the inode, which nobody
// asks for, at the price of a second write to the disk's journal.
func (d disk) Sync() error {
	if err := control(d.File, syscall.Fdatasync); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: d.Name(), Err: err}
	}
	return nil
}

// control calls a system call until no signal interrupts it.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		for result = call(int(fd)); errors.Is(result, syscall.EINTR); result = call(int(fd)) {
		}
	})
	return errors.Join(err, result)
}

// writeAll writes all of b; a short write is carried on.
func writeAll(w io.Writer, b []byte) error {
	for len(b) > 0 {
		n, err := w.Write(b)
		if err != nil {
			return err
		}
		if n <= 0 || n > len(b) {
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

// What can happen to the file under a log that is open.
var (
	errGone     = errors.New("the log's file is not at its path any more")
	errReplaced = errors.New("another file stands at the log's path")
)

// intact reports whether f is still what path names, and as long as the log
// made it. An entry in a file that nobody will find again is no entry.
func intact(path string, f File, size int64) error {
	here, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errGone
	case err != nil:
		return err
	case !os.SameFile(here, there):
		return errReplaced
	case here.Size() != size:
		return fmt.Errorf("the log's file has %d bytes and should have %d: somebody else changed it", here.Size(), size)
	}
	return nil
}

// syncFolder makes a new name in the folder of path durable.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// scanBack is the offset just after the n-th newline before end, counted
// backwards, or 0 where there are fewer.
func scanBack(r io.ReaderAt, end int64, n int) (int64, error) {
	block := make([]byte, 64<<10)
	for end > 0 {
		start := max(0, end-int64(len(block)))
		part := block[:end-start]
		if _, err := r.ReadAt(part, start); err != nil {
			return 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			if part[i] != '\n' {
				continue
			}
			if n--; n == 0 {
				return start + int64(i) + 1, nil
			}
		}
		end = start
	}
	return 0, nil
}
