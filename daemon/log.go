package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
	log, recovery, err := audit.Open(c.logPath(), cfg)
	if errors.Is(err, audit.ErrOtherKey) {
		return fmt.Errorf("%w; to begin a new log, move %s and all files beside it that begin with its name away", err, c.logPath())
	}
	if err != nil {
		return err
	}
	c.log = log
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
	cfg := audit.Config{Boot: c.clock.Boot, Wall: c.clock.Wall, BootID: strings.TrimSpace(string(bootID))}
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

func (c *core) closeLog() error {
	return errors.Join(c.record(audit.Event{Kind: "stop"}), c.log.Close())
}
