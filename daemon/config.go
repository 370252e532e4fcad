package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/seam"
	"openscope/daemon/internal/session"
	"openscope/daemon/internal/yamlfile"
	"openscope/wire"
)

// Config is what a daemon is told. The zero Config refuses to start.
type Config struct {
	// Relays are the ways out, at most three; Token is this deployment's.
	Relays []wire.Relay
	// RelayRoots, in PEM, authenticate a relay that has no pin; nil means the
	// system's.
	RelayRoots []byte
	// Proxy is the way out through an HTTP proxy, where there is one.
	Proxy seam.Proxy
	// NetUser is whose rights the process has that faces the network, where the
	// daemon is root; empty means openscope-net, and nobody where there is none.
	NetUser string
	// InProcess keeps that part in this process, at the other end of the same
	// pipe: for tests, and for trying things out.
	InProcess bool
	Token     wire.Token
	// StateDir holds the identity key and the log; Socket is the control socket.
	StateDir, Socket string
	// Grants, Verbs and Recipients are the root-owned files of DESIGN.md.
	Grants, Verbs, Recipients string
	// MaxTTL lowers the 30 minutes cap; zero leaves it.
	MaxTTL time.Duration
	// ApproveWithin is how long a call waits for an approval; zero means 2 minutes.
	ApproveWithin time.Duration
	// Log is how the log is kept.
	Log LogConfig
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
	Proxy      proxyFile     `yaml:"proxy"`
	TokenFile  string        `yaml:"token_file"`
	NetUser    string        `yaml:"net_user"`
	StateDir   string        `yaml:"state_dir"`
	Socket     string        `yaml:"socket"`
	Grants     string        `yaml:"grants"`
	Verbs      string        `yaml:"verbs"`
	Recipients string        `yaml:"recipients"`
	MaxTTL     time.Duration `yaml:"max_ttl"`

	ApproveWithin time.Duration `yaml:"approve_within"`
	Log           logSection    `yaml:"log"`
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
	lines, err := yamlfile.Decode(path, data, &file)
	if err != nil {
		return Config{}, err
	}
	cfg, wrong := file.config(filepath.Dir(path))
	if len(wrong) == 0 {
		return cfg, nil
	}
	for i, err := range wrong {
		wrong[i] = placed(path, lines, err)
	}
	return Config{}, wrong
}

// placed puts the line before an error that begins with its key.
func placed(path string, lines yamlfile.Lines, err error) error {
	key, _, _ := strings.Cut(err.Error(), ":")
	key = strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(key)
	if line := lines.At(key); line > 0 {
		return fmt.Errorf("%s:%d: %w", path, line, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (f configFile) config(dir string) (cfg Config, wrong yamlfile.Mistakes) {
	within := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	cfg = Config{
		StateDir: within(f.StateDir), Socket: within(f.Socket), MaxTTL: f.MaxTTL, ApproveWithin: f.ApproveWithin,
		Grants: within(f.Grants), Verbs: within(f.Verbs), Recipients: within(f.Recipients), NetUser: f.NetUser,
	}
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if f.MaxTTL < 0 || f.MaxTTL > session.HardCap {
		refuse("max_ttl: %s is not between 0 and %s; the cap can be lowered, never raised", f.MaxTTL, session.HardCap)
	}
	if f.ApproveWithin < 0 || f.ApproveWithin > session.HardCap {
		refuse("approve_within: %s is not between 0 and %s", f.ApproveWithin, session.HardCap)
	}
	if _, err := netIdentity(f.NetUser); err != nil {
		refuse("%w", err)
	}
	cfg.Log = f.Log.config(refuse)
	cfg.Notify = Notify{Argv: f.Notify.Command, Events: f.Notify.Events, Timeout: f.Notify.Timeout}
	if err := cfg.Notify.check(os.Geteuid()); err != nil {
		refuse("%w", err)
	}
	var err error
	if cfg.Proxy, err = f.Proxy.settings(within); err != nil {
		refuse("proxy: %w", err)
	}
	if len(f.Relays) == 0 {
		return cfg, wrong // local calls need no relay; share open says what is missing
	}
	cfg.Relays = f.relays(refuse)
	text, err := readSecret(within(f.TokenFile))
	if err != nil {
		refuse("token_file: %w", err)
	} else if cfg.Token, err = wire.ParseToken(strings.TrimSpace(string(text))); err != nil {
		refuse("token_file: %s: %w", within(f.TokenFile), err)
	}
	return cfg, wrong
}

func (f configFile) relays(refuse func(string, ...any)) []wire.Relay {
	if len(f.Relays) > maxRelays {
		refuse("relays: %d named, at most %d fit into a handle", len(f.Relays), maxRelays)
		return nil
	}
	all := make([]wire.Relay, len(f.Relays))
	for i, r := range f.Relays {
		all[i].Address = strings.ToLower(r.Address)
		if r.Pin == "" {
			continue
		}
		pin, err := wire.ParsePin(r.Pin)
		if err != nil {
			refuse("relays[%d].pin: %w", i, err)
		}
		all[i].Pin = &pin
	}
	return all
}
