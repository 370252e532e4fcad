package executor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const maxKeyFile = 64 << 10

// readKey reads a private key file: a regular file, for its owner alone (0600
// or 0400), owned by root, by the daemon's user or by owner, and reached
// without a symbolic link, so that nobody can lend the daemon somebody else's.
func readKey(path string, owner uint32) (ssh.Signer, error) {
	f, err := openNoLinks(path)
	if err != nil {
		return nil, fmt.Errorf("opening key file %s: %w", path, err)
	}
	defer f.Close()
	if err := checkKeyFile(f, owner); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", path, err)
	}
	defer clear(data)
	signer, err := ssh.ParsePrivateKey(data)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("key file %s: it has a passphrase, and there is nobody to ask", path)
	}
	if err != nil {
		// The parser's text could quote the file.
		return nil, fmt.Errorf("key file %s: not a private key that OpenSSH could read", path)
	}
	return restrict(signer, path)
}

// restrict leaves the signer only signature algorithms without known weakness:
// for an RSA key, not SHA-1.
func restrict(signer ssh.Signer, path string) (ssh.Signer, error) {
	allowed := signatureAlgorithms(signer.PublicKey(), ssh.SupportedAlgorithms().PublicKeyAuths)
	full, ok := signer.(ssh.AlgorithmSigner)
	if !ok || len(allowed) == 0 {
		return nil, fmt.Errorf("key file %s: keys of type %s are not used", path, signer.PublicKey().Type())
	}
	return ssh.NewSignerWithAlgorithms(full, allowed)
}

// signatureAlgorithms are those among supported that a key can sign with.
func signatureAlgorithms(key ssh.PublicKey, supported []string) []string {
	own := []string{key.Type()}
	if key.Type() == ssh.KeyAlgoRSA {
		own = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return slices.DeleteFunc(own, func(a string) bool { return !slices.Contains(supported, a) })
}

func checkKeyFile(f *os.File, owner uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case st.Mode&0o7177 != 0:
		return fmt.Errorf("its mode is %04o, and must be 0600", st.Mode&0o7777)
	case st.Uid != 0 && st.Uid != owner && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to uid %d, and must belong to root, to the daemon's user or to uid %d", st.Uid, owner)
	case st.Nlink != 1:
		return errors.New("it has a second name (hard link)")
	case st.Size > maxKeyFile:
		return fmt.Errorf("%d bytes are no key", st.Size)
	}
	return nil
}

// openNoLinks opens a file for reading, following no symbolic link in any part
// of its path, and not waiting for a device or pipe to answer.
func openNoLinks(path string) (*os.File, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, errors.New("not an absolute path in its shortest form")
	}
	at, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(at) }()
	parts := strings.Split(path[1:], "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := unix.Openat(at, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
		_ = unix.Close(at)
		at = next
	}
	last := parts[len(parts)-1]
	fd, err := unix.Openat(at, last, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", last, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
