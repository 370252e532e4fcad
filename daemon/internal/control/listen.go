package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Listen makes the socket. It is made under another name, in the socket's
// folder, and moved into place once its mode is right: there is no moment at
// which it answers with another. A stale one is replaced; a live one is not.
// Everybody on the machine may connect: the kernel says who they are, and the
// daemon what they may.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another daemon answers there", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	private := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(private); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it has another name
	if err := errors.Join(os.Chmod(private, 0o666), os.Rename(private, path)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(private))
	}
	return &listener{UnixListener: l, path: path}, nil
}

// listener removes the socket under its public name.
type listener struct {
	*net.UnixListener
	path string
}

func (l *listener) Close() error {
	return errors.Join(l.UnixListener.Close(), os.Remove(l.path))
}
