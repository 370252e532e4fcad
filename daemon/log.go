package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/wire/checkpoint"
)

// checkpointPrefix starts the text of the key that signs the log's checkpoints.
const checkpointPrefix = "OPENSCOPE-CHECKPOINT-KEY-1"

func (c *core) logPath() string { return filepath.Join(c.cfg.StateDir, "audit.log") }

// openLog opens the log and enters that the daemon has started. A daemon that
// cannot write its log does not start.
func (c *core) openLog() error {
	cfg, err := c.logConfig()
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	beside, err := c.cfg.Log.open()
	if c.cfg.Log.CopyRequired {
		if err != nil {
			return err
		}
		cfg.Copy, beside = beside, nil
	}
	if err != nil {
		c.logger.Error("the log has no copy", "error", err)
	}
	log, recovery, err := audit.Open(c.logPath(), cfg)
	if errors.Is(err, audit.ErrOtherKey) {
		return fmt.Errorf("%w; to begin a new log, move %s and all files beside it that begin with its name away", err, c.logPath())
	}
	if err != nil {
		return err
	}
	c.log = log
	if beside != nil {
		c.follow(beside)
	}
	start := audit.Event{Kind: "start"}
	if recovery.Torn {
		c.logger.Warn("the log's last line was torn by a crash and has been set aside", "file", recovery.SetAside)
	}
	if recovery.Unsigned > 0 {
		start.Reason = fmt.Sprintf("the first %d entries stood without a checkpoint", recovery.Unsigned)
		c.logger.Warn("the log had entries and no checkpoints: what was cut off it before now does not show", "entries", recovery.Unsigned)
	}
	return c.record(start)
}

func (c *core) logConfig() (audit.Config, error) {
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return audit.Config{}, fmt.Errorf("reading the boot id: %w", err)
	}
	cfg := audit.Config{Boot: c.clock.Boot, Wall: c.clock.Wall, BootID: strings.TrimSpace(string(bootID)), Rotate: c.cfg.Log.FileSize}
	return cfg, c.signCheckpoints(&cfg)
}

// signCheckpoints gives the log its key, which is made where there is none. It
// is a key of its own, so that what writes the log needs no other; the identity
// endorses it (wire/README.md §15).
func (c *core) signCheckpoints(cfg *audit.Config) error {
	path := filepath.Join(c.cfg.StateDir, "checkpoint.key")
	key, err := readKeyFile(path, checkpointPrefix)
	if errors.Is(err, fs.ErrNotExist) {
		if err := newKeyFile(path, checkpointPrefix, c.rand); err != nil {
			return err
		}
		key, err = readKeyFile(path, checkpointPrefix)
	}
	if err != nil {
		return fmt.Errorf("reading the checkpoint key: %w", err)
	}
	c.logKey = key
	endorsed := checkpoint.Endorse(c.identity.Reveal(), key.Public())
	cfg.KeyNote = endorsed.Text()
	if cfg.Signer, err = endorsed.Signer(key); err != nil {
		return err
	}
	cfg.Verifier, err = endorsed.Verifier()
	return err
}

// follow keeps a copy of the log that is not required. It ends with the log.
func (c *core) follow(beside audit.Copy) {
	c.copied = make(chan struct{})
	go func() {
		defer close(c.copied)
		c.log.Follow(context.Background(), beside, c.copyFailed)
		if err := beside.Close(); err != nil {
			c.logger.Warn("closing the log's copy", "error", err)
		}
	}()
}

// copyFailed enters that the copy has failed, or, with nil, that it goes on.
func (c *core) copyFailed(err error) {
	e := audit.Event{Kind: "copy", Reason: "the copy is written again, with all it has missed"}
	if err != nil {
		e.Cause, e.Reason = "failed", err.Error()
		c.logger.Error("the log's copy cannot be written", "error", err)
	}
	_ = c.record(e) // a log that has failed stops everything by itself
}

// copyGrace is how long a copy that hangs holds up the daemon's end.
const copyGrace = 2 * time.Second

func (c *core) closeLog() error {
	var err error
	if n := c.overRate.flush(); n > 0 {
		err = c.recordLocalOverRate(n)
	}
	err = errors.Join(err, c.record(audit.Event{Kind: "stop"}), c.log.Close())
	if c.copied == nil {
		return err
	}
	late := time.NewTimer(copyGrace)
	defer late.Stop()
	select {
	case <-c.copied:
	case <-late.C:
		c.logger.Warn("the log's copy hangs: its end is missing there")
	}
	return err
}
