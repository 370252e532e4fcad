package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"openscope/daemon"
	"openscope/daemon/internal/audit"
	"openscope/wire/channel"
	"openscope/wire/checkpoint"
	"openscope/wire/handle"
	"openscope/wire/term"
)

// verified is what audit verify found.
type verified struct {
	File        string `json:"file"`
	Files       int    `json:"files"`
	Entries     int    `json:"entries"`
	Torn        bool   `json:"torn"`
	Head        string `json:"head"`
	Checkpoints int    `json:"checkpoints"`
	Covered     int    `json:"covered"`          // entries up to the last checkpoint
	Daemon      string `json:"daemon,omitempty"` // fingerprint of who endorsed their key
	words       []string
}

func (p *paths) auditVerify(_ context.Context, env *term.Env, args []string) error {
	path, own, err := p.logFile(args)
	if err != nil {
		return err
	}
	shown, err := verifyLog(path, own)
	if errors.Is(err, fs.ErrNotExist) {
		return term.Errorf(term.Config, "%w", err)
	}
	if err != nil {
		return term.Errorf(term.Config, "%s: %w", path, err).WithHint("everything before that line is as it was written")
	}
	return env.Print(shown, shown.print)
}

func (v verified) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %d entries, all in the chain; head %s\n", v.File, v.Entries, v.Head)
	if v.Torn {
		fmt.Fprintln(w, "the last line is unfinished: it is being written, or a crash tore it")
	}
	if v.Daemon == "" {
		fmt.Fprintln(w, "no checkpoints were looked at: whether its end was cut off does not show")
		return
	}
	fmt.Fprintf(w, "%d checkpoints, the last over %d entries; their key is endorsed by the daemon with the fingerprint\n  %s\n",
		v.Checkpoints, v.Covered, strings.Join(v.words, " "))
}

// fullFile is how the log calls a file of its that is full.
var fullFile = regexp.MustCompile(`\.[0-9]{10,}$`)

// verifyLog verifies a log across its files, or, of one that is full, that file
// by itself. The daemon's own has checkpoints, endorsed by the daemon; a copy may
// have been taken without, or of another daemon's.
func verifyLog(path, stateDir string) (verified, error) {
	if fullFile.MatchString(path) {
		file, err := os.Open(path)
		if err != nil {
			return verified{}, err
		}
		defer file.Close()
		report, err := audit.VerifyPart(file)
		return newVerified(path, report), err
	}
	text, err := audit.KeyNote(path)
	if errors.Is(err, fs.ErrNotExist) && stateDir == "" {
		report, err := audit.VerifyFiles(path, nil)
		return newVerified(path, report), err
	}
	if err != nil {
		return verified{}, err
	}
	endorsed, err := checkpoint.ParseEndorsement(text)
	if err != nil {
		return verified{}, fmt.Errorf("%s:1: %w", audit.CheckpointsOf(path), err)
	}
	fp := channel.Fingerprint(endorsed.Daemon)
	if stateDir != "" {
		if own, err := daemon.Fingerprint(stateDir); err != nil || own != fp {
			return verified{}, errors.Join(fmt.Errorf("%s:1: the key is not endorsed by this daemon", audit.CheckpointsOf(path)), err)
		}
	}
	key, err := endorsed.Verifier()
	if err != nil {
		return verified{}, err
	}
	report, err := audit.VerifyFiles(path, key)
	shown := newVerified(path, report)
	shown.Daemon, shown.words = hex.EncodeToString(fp[:]), handle.FingerprintWords(fp)
	return shown, err
}

func newVerified(path string, r audit.Report) verified {
	return verified{
		File: path, Files: max(1, r.Files), Entries: r.Entries, Torn: r.Torn, Head: hex.EncodeToString(r.Head[:]),
		Checkpoints: r.Checkpoints, Covered: r.Covered,
	}
}

// logFile is the named file, or the configuration's log, and then the folder
// with the daemon's identity.
func (p *paths) logFile(args []string) (path, stateDir string, err error) {
	if len(args) == 1 {
		return args[0], "", nil
	}
	cfg, err := daemon.LoadConfig(p.config)
	if err != nil {
		return "", "", term.Errorf(term.Config, "%w", err).WithHint("name the log's file: openscope audit verify FILE")
	}
	return filepath.Join(cfg.StateDir, "audit.log"), cfg.StateDir, nil
}
