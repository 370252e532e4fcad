package daemon

import (
	"path/filepath"
	"strings"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/yamlfile"
)

// LogConfig is how the log is kept. The zero LogConfig is a log without a copy,
// in files of [audit.DefaultRotate].
type LogConfig struct {
	// FileSize is where a file of the log is full and another begun.
	FileSize int64
	// Copy is where every entry goes besides: "syslog", or a file's absolute path.
	Copy string
	// CopyRequired makes its failure stop everything, as the log's own does.
	CopyRequired bool
}

// logSection is LogConfig as it is written.
type logSection struct {
	FileSize yamlfile.Size `yaml:"file_size"`
	Copy     struct {
		To       string `yaml:"to"`
		Required bool   `yaml:"required"`
	} `yaml:"copy"`
}

// The smallest file of a log that is worth a name, and the largest that is still
// read in reasonable time.
const (
	minLogFile = 64 << 10
	maxLogFile = 1 << 30
)

func (f logSection) config(refuse func(format string, args ...any)) LogConfig {
	cfg := LogConfig{FileSize: int64(f.FileSize), Copy: f.Copy.To, CopyRequired: f.Copy.Required}
	if cfg.FileSize != 0 && (cfg.FileSize < minLogFile || cfg.FileSize > maxLogFile) {
		refuse("log.file_size: %d bytes is not between 64KiB and 1GiB", cfg.FileSize)
	}
	if _, ok := cfg.syslog(); cfg.Copy != "" && !ok && !filepath.IsAbs(cfg.Copy) {
		refuse("log.copy.to: %q is neither syslog nor an absolute path", cfg.Copy)
	}
	if cfg.Copy == "" && cfg.CopyRequired {
		refuse("log.copy: it is required, and there is none: say to: syslog, or a file")
	}
	return cfg
}

// syslog is the socket of the system log, where the copy goes there. Another
// than the usual one is written behind a colon.
func (cfg LogConfig) syslog() (socket string, ok bool) {
	if cfg.Copy == "syslog" {
		return "/dev/log", true
	}
	socket, ok = strings.CutPrefix(cfg.Copy, "syslog:")
	return socket, ok && filepath.IsAbs(socket)
}

// open opens the copy; nil where there is none.
func (cfg LogConfig) open() (audit.Copy, error) {
	if cfg.Copy == "" {
		return nil, nil
	}
	if socket, ok := cfg.syslog(); ok {
		return audit.NewSyslogCopy(socket), nil
	}
	return audit.OpenFileCopy(cfg.Copy, cfg.FileSize)
}
