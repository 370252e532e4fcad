package executor

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// readSecretLine reads the one line of a secret file, which has to be protected
// as a private key is, by root or the daemon's own user.
func readSecretLine(path string) (string, error) {
	f, err := openNoLinks(path)
	if err != nil {
		return "", fmt.Errorf("opening secret file %s: %w", path, err)
	}
	defer f.Close()
	if err := checkKeyFile(f, uint32(os.Geteuid())); err != nil {
		return "", fmt.Errorf("secret file %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("reading secret file %s: %w", path, err)
	}
	defer clear(data)
	line := string(bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r")))
	if !isHeaderValue(line) {
		return "", fmt.Errorf("secret file %s: it is not one line of printable characters", path)
	}
	return line, nil
}
