package daemon

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/session"
	"openscope/wire"
)

// Config is what a daemon is told. The zero Config refuses to start.
type Config struct {
	// Relays are the ways out, at most three; Token is this deployment's.
	Relays []wire.Relay
	// RelayRoots authenticate a relay that has no pin; nil means the system's.
	RelayRoots *x509.CertPool
	Token      wire.Token
	// StateDir holds the identity key and the log; Socket is the control socket.
	StateDir, Socket string
	// Grants, Verbs and Recipients are the root-owned files of DESIGN.md.
	Grants, Verbs, Recipients string
	// MaxTTL lowers the 30 minutes cap; zero leaves it.
	MaxTTL time.Duration
	// ApproveWithin is how long a call waits for an approval; zero means 2 minutes.
	ApproveWithin time.Duration
	// Notify tells issuers what happens in their sessions.
	Notify Notify

	// Clock and Rand are the machine's own when nil.
	Clock  session.Clock
	Rand   io.Reader
	Logger *slog.Logger
}

// configFile is openscope.yaml as it is written.
type configFile struct {
	Relays []struct {
		Address string `yaml:"address"`
		Pin     string `yaml:"pin"`
	} `yaml:"relays"`
	TokenFile  string        `yaml:"token_file"`
	StateDir   string        `yaml:"state_dir"`
	Socket     string        `yaml:"socket"`
	Grants     string        `yaml:"grants"`
	Verbs      string        `yaml:"verbs"`
	Recipients string        `yaml:"recipients"`
	MaxTTL     time.Duration `yaml:"max_ttl"`

	ApproveWithin time.Duration `yaml:"approve_within"`
	Notify        struct {
		Command []string      `yaml:"command"`
		Events  []string      `yaml:"events"`
		Timeout time.Duration `yaml:"timeout"`
	} `yaml:"notify"`
}

// maxRelays is how many a handle can name (wire/README.md §4).
const maxRelays = 3

// LoadConfig reads openscope.yaml, and the token it names. The file is a root
// of trust: it must be protected as the grants must.
func LoadConfig(path string) (Config, error) {
	data, err := policy.ReadProtected(path, os.Geteuid())
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	file := configFile{
		TokenFile: "token", StateDir: "/var/lib/openscope", Socket: "/run/openscope/openscope.sock",
		Grants: "grants.yaml", Verbs: "verbs.yaml", Recipients: "recipients.yaml",
	}
	if err := policy.CheckShape(path, data); err != nil {
		return Config{}, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, yamlError(path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: more than one document", path)
	}
	cfg, err := file.config(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

func (f configFile) config(dir string) (Config, error) {
	within := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	cfg := Config{
		StateDir: within(f.StateDir), Socket: within(f.Socket), MaxTTL: f.MaxTTL, ApproveWithin: f.ApproveWithin,
		Grants: within(f.Grants), Verbs: within(f.Verbs), Recipients: within(f.Recipients),
	}
	if f.MaxTTL < 0 || f.MaxTTL > session.HardCap {
		return Config{}, fmt.Errorf("max_ttl: %s is not between 0 and %s; the cap can be lowered, never raised", f.MaxTTL, session.HardCap)
	}
	if f.ApproveWithin < 0 || f.ApproveWithin > session.HardCap {
		return Config{}, fmt.Errorf("approve_within: %s is not between 0 and %s", f.ApproveWithin, session.HardCap)
	}
	cfg.Notify = Notify{Argv: f.Notify.Command, Events: f.Notify.Events, Timeout: f.Notify.Timeout}
	if err := cfg.Notify.check(os.Geteuid()); err != nil {
		return Config{}, err
	}
	if len(f.Relays) == 0 {
		return cfg, nil // local calls need no relay; share open says what is missing
	}
	if len(f.Relays) > maxRelays {
		return Config{}, fmt.Errorf("relays: %d named, at most %d fit into a handle", len(f.Relays), maxRelays)
	}
	for i, r := range f.Relays {
		relay := wire.Relay{Address: strings.ToLower(r.Address)}
		if r.Pin != "" {
			pin, err := wire.ParsePin(r.Pin)
			if err != nil {
				return Config{}, fmt.Errorf("relays[%d].pin: %w", i, err)
			}
			relay.Pin = &pin
		}
		cfg.Relays = append(cfg.Relays, relay)
	}
	text, err := readSecret(within(f.TokenFile))
	if err != nil {
		return Config{}, fmt.Errorf("token_file: %w", err)
	}
	if cfg.Token, err = wire.ParseToken(strings.TrimSpace(string(text))); err != nil {
		return Config{}, fmt.Errorf("token_file: %s: %w", within(f.TokenFile), err)
	}
	return cfg, nil
}

// yamlError puts yaml's several lines on one, and the file's name before it.
func yamlError(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n")
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line, rest, ok := strings.Cut(strings.TrimPrefix(first, "line "), ": "); ok && line != first {
		return fmt.Errorf("%s:%s: %s", path, line, rest)
	}
	return fmt.Errorf("%s: %s", path, first)
}
