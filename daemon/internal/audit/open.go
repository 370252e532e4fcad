package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Recovery is what Open found at the end of the file. A torn line is the
// beginning of an entry whose Append never returned: nothing was done on its
// behalf.
type Recovery struct {
	Torn     bool
	Bytes    int64  // of the torn line
	SetAside string // the file they were put into, beside the log
	// Unsigned is how many entries there were when the checkpoints were begun:
	// more than zero where the file with those before is gone, or there was no key.
	Unsigned uint64
}

// Open opens the log at path for appending, and makes it where there is none.
// It reads the last line only: whether all before it is unharmed is for
// [Verify] to say. A last line without its newline is moved to a file of its
// own beside the log, and the first new entry (KindTorn) names it. A last line
// that is whole and wrong is a *BadEntry: such a log is not carried on.
func Open(path string, cfg Config) (*Log, Recovery, error) {
	l, recovery, err := open(path, cfg)
	if err != nil {
		return nil, recovery, fmt.Errorf("opening the log: %w", err)
	}
	return l, recovery, nil
}

func open(path string, cfg Config) (*Log, Recovery, error) {
	if cfg.Open == nil {
		cfg.Open = OpenFile
	}
	l, err := newLog(path, cfg)
	if err != nil {
		return nil, Recovery{}, err
	}
	recovery, err := l.recover()
	if err == nil && l.signer != nil {
		recovery.Unsigned, err = l.openCheckpoints(cfg)
	}
	if err == nil && l.copy != nil {
		err = l.catchUp(l.copy)
	}
	if err == nil && recovery.Torn {
		_, err = l.Append(recovery.event())
	}
	if err != nil {
		if l.points != nil {
			err = errors.Join(err, l.points.Close())
		}
		return nil, recovery, errors.Join(err, l.file.Close())
	}
	return l, recovery, nil
}

func newLog(path string, cfg Config) (*Log, error) {
	if cfg.Wall == nil || cfg.Boot == nil {
		return nil, errors.New("the configuration has no clocks")
	}
	if cfg.Signer != nil && cfg.Verifier == nil {
		return nil, errors.New("the configuration has a key for checkpoints, and nothing to verify them with")
	}
	if cfg.Rotate == 0 {
		cfg.Rotate = DefaultRotate
	}
	if cfg.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("reading the boot's id: %w", err)
		}
		cfg.BootID = strings.TrimSpace(string(id))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, err := cfg.Open(path)
	if err != nil {
		return nil, err
	}
	return &Log{
		path: path, wall: cfg.Wall, boot: cfg.Boot, bootID: clip(cfg.BootID), file: file,
		copy: cfg.Copy, open: cfg.Open, limit: cfg.Rotate, signer: cfg.Signer, verifier: cfg.Verifier,
		closed: make(chan struct{}), turn: make(chan struct{}, 1),
		waiting: newBatch(), grown: make(chan struct{}),
	}, nil
}
