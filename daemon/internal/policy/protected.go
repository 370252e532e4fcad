package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile bounds every configuration file.
const maxFile = 1 << 20

// ProtectionError says that a file is not protected as a root of trust must be,
// and how to mend it.
type ProtectionError struct{ Path, Problem, Fix string }

func (e *ProtectionError) Error() string {
	if e.Fix == "" {
		return e.Path + ": " + e.Problem
	}
	return fmt.Sprintf("%s: %s; run: %s", e.Path, e.Problem, e.Fix)
}

// ReadProtected reads a file that nobody but root, or the user uid, can have
// written: a regular file, no symlink, of one name, owned by one of the two, not
// writable by anybody else, in folders of which the same holds (a sticky folder of root's
// passes). The open file is what is checked, and what is read.
func ReadProtected(path string, uid int) ([]byte, error) {
	return read(path, uid, false)
}

// ReadSecret is ReadProtected for a file that nobody else may even read.
func ReadSecret(path string, uid int) ([]byte, error) {
	return read(path, uid, true)
}

func read(path string, uid int, secret bool) ([]byte, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(absolute, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, &ProtectionError{Path: path, Problem: "it is a symbolic link"}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), absolute)
	defer file.Close()
	if err := checkFile(file, path, uid); err != nil {
		return nil, err
	}
	if err := checkAlone(file, path, secret); err != nil {
		return nil, err
	}
	if err := checkFolders(filepath.Dir(absolute), uid); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, &ProtectionError{Path: path, Problem: fmt.Sprintf("it is larger than %d bytes", maxFile)}
	}
	return data, nil
}

// CheckProtected holds a program to what ReadProtected asks of a file, at every
// name that leads to it. It is not opened: whoever may write to it later may do
// so only as root, or as the user uid.
func CheckProtected(path string, uid int) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	file, err := os.Open(real)
	if err != nil {
		return err
	}
	defer file.Close()
	return errors.Join(checkFile(file, real, uid), checkFolders(filepath.Dir(real), uid), checkFolders(filepath.Dir(path), uid))
}

func checkFile(file *os.File, path string, uid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return &ProtectionError{Path: path, Problem: "it is not a regular file"}
	case st.Uid != 0 && int(st.Uid) != uid:
		return &ProtectionError{Path: path, Problem: fmt.Sprintf("it is owned by user %d", st.Uid), Fix: "chown root " + path}
	case st.Mode&0o022 != 0:
		return &ProtectionError{Path: path, Problem: fmt.Sprintf("it is writable by others (mode %04o)", st.Mode&0o7777), Fix: "chmod go-w " + path}
	}
	return nil
}

// checkAlone refuses a file that has a second name, under which somebody may have
// put it here who could not have written it; and one that others read and must
// not. Programs often have several names: this is not for them.
func checkAlone(file *os.File, path string, secret bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Nlink > 1: // none: it has just been replaced, and was good
		return &ProtectionError{Path: path, Problem: fmt.Sprintf("it has %d names (hard links)", st.Nlink), Fix: fmt.Sprintf("cp -p %s %s.alone && mv %s.alone %s", path, path, path, path)}
	case secret && st.Mode&0o077 != 0:
		return &ProtectionError{Path: path, Problem: fmt.Sprintf("mode %04o lets others read a secret", st.Mode&0o7777), Fix: "chmod 600 " + path}
	}
	return nil
}

// CheckFolder holds a folder, and those above it, to what ReadProtected asks of a
// file's; of one that is not there yet, those that are.
func CheckFolder(dir string, uid int) error {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		err := checkFolders(absolute, uid)
		if !errors.Is(err, fs.ErrNotExist) || absolute == filepath.Dir(absolute) {
			return err
		}
		absolute = filepath.Dir(absolute)
	}
}

// checkFolders walks up to the root: whoever can write a folder can replace
// what is in it.
func checkFolders(dir string, uid int) error {
	for {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: dir, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			real, err := filepath.EvalSymlinks(dir)
			if err != nil {
				return err
			}
			if err := checkFolders(real, uid); err != nil {
				return err
			}
		} else if err := checkFolder(dir, st, uid); err != nil {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func checkFolder(dir string, st unix.Stat_t, uid int) error {
	if st.Uid != 0 && int(st.Uid) != uid {
		return &ProtectionError{Path: dir, Problem: fmt.Sprintf("the folder is owned by user %d", st.Uid), Fix: "chown root " + dir}
	}
	sticky := st.Mode&unix.S_ISVTX != 0 && st.Uid == 0
	if st.Mode&0o022 != 0 && !sticky {
		return &ProtectionError{Path: dir, Problem: fmt.Sprintf("the folder is writable by others (mode %04o)", st.Mode&0o7777), Fix: "chmod go-w " + dir}
	}
	return nil
}
