package term

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// List is a flag that may be given several times.
type List []string

// String is for the flag package.
func (l *List) String() string { return strings.Join(*l, " ") }

// Set adds a value.
func (l *List) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// maxTTL is the longest time any session lives.
const maxTTL = 30 * time.Minute

// TTL is a session's time: more than zero, at most 30 minutes. It is refused,
// never replaced.
type TTL time.Duration

// String is for the flag package.
func (d *TTL) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Set reads a Go duration.
func (d *TTL) Set(v string) error {
	parsed, err := time.ParseDuration(v)
	if err != nil {
		return fmt.Errorf("%q is not a duration like 30m or 90s", v)
	}
	if parsed <= 0 || parsed > maxTTL {
		return fmt.Errorf("%s is not more than 0 and at most %s", v, maxTTL)
	}
	*d = TTL(parsed)
	return nil
}

// Bytes is a size like 64MiB.
type Bytes uint64

var bytesPattern = regexp.MustCompile(`^([1-9][0-9]{0,9})(B|KiB|MiB|GiB)?$`)

// String is for the flag package.
func (b *Bytes) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*b), 10)
}

// Set reads a number with a binary unit.
func (b *Bytes) Set(v string) error {
	m := bytesPattern.FindStringSubmatch(v)
	if m == nil {
		return fmt.Errorf("%q is not a size like 64MiB", v)
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a size like 64MiB", v)
	}
	*b = Bytes(n << map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
	return nil
}

// maxSecret bounds a secret read from a file or standard input.
const maxSecret = 64 << 10

// Secret is the value of a secret argument: itself, @file, or - for standard
// input. Errors never hold any of it.
func (e *Env) Secret(arg string) (string, error) {
	var from io.Reader
	switch {
	case arg == "-":
		from = e.Stdin
	case strings.HasPrefix(arg, "@"):
		file, err := os.Open(arg[1:])
		if err != nil {
			return "", Errorf(Usage, "%w", err)
		}
		defer file.Close()
		from = file
	default:
		return arg, nil
	}
	data, err := io.ReadAll(io.LimitReader(from, maxSecret+1))
	if err != nil {
		return "", Errorf(Usage, "reading a secret: %w", err)
	}
	if len(data) > maxSecret {
		return "", Errorf(Usage, "reading a secret: more than %d bytes", maxSecret)
	}
	return strings.TrimSpace(string(data)), nil
}

// Params reads name=value words.
func Params(words []string) ([][2]string, error) {
	var all [][2]string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, Errorf(Usage, "%q is not name=value", w)
		}
		all = append(all, [2]string{name, value})
	}
	return all, nil
}

var errNoValue = errors.New("it needs a value")
