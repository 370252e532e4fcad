package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openscope/daemon"
	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/policy"
	"openscope/wire"
	"openscope/wire/term"
)

// initFlags are the flags of init.
type initFlags struct {
	dir, relay, pin, token string
	force                  bool
}

func initCommand() *term.Command {
	f := &initFlags{dir: defaultConfigDir}
	return &term.Command{
		Name: "init", Short: "write a starter configuration, an identity, sample verbs, and a grants file that denies everything",
		Long: "It overwrites nothing without --force, and the identity not even then: recipients know the daemon by it.",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&f.dir, "dir", f.dir, "the `DIR` to write into")
			fs.StringVar(&f.relay, "relay", "", "the relay's `HOST:PORT`")
			fs.StringVar(&f.pin, "relay-pin", "", "the relay's `PIN`, if its certificate is self-signed")
			fs.StringVar(&f.token, "token", "", "this deployment's `TOKEN`, as @FILE or - for standard input")
			fs.BoolVar(&f.force, "force", false, "overwrite the configuration that is there")
		},
		Run: f.run,
	}
}

// starterFile is one file of a new installation.
type starterFile struct {
	name string
	data []byte
	mode os.FileMode
}

func (f *initFlags) run(_ context.Context, env *term.Env, _ []string) error {
	token, err := f.check(env)
	if err != nil {
		return err
	}
	files := []starterFile{
		{"openscope.yaml", []byte(f.configuration()), 0o644},
		{"verbs.yaml", catalog.Starter, 0o644},
		{"grants.yaml", policy.StarterGrants, 0o644},
		{"recipients.yaml", policy.StarterRecipients, 0o644},
	}
	// To copy from: the daemon reads none of them.
	samples := catalog.Samples()
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		files = append(files, starterFile{filepath.Join("samples", name), samples[name], 0o644})
	}
	if token != "" {
		files = append(files, starterFile{"token", []byte(token + "\n"), 0o600})
	}
	if err := f.refuseOverwriting(files); err != nil {
		return err
	}
	state := f.stateDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(f.dir, "samples"), 0o755), os.MkdirAll(state, 0o700)); err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	written := []string{}
	for _, file := range files {
		path := filepath.Join(f.dir, file.name)
		if err := writeStarter(path, file); err != nil {
			return term.Errorf(term.Config, "writing %s: %w", path, err)
		}
		written = append(written, path)
	}
	identity := filepath.Join(state, "identity.key")
	err = daemon.NewIdentityFile(identity, rand.Reader)
	if err == nil {
		written = append(written, identity)
	} else if !errors.Is(err, fs.ErrExist) {
		return term.Errorf(term.Config, "%w", err)
	}
	return env.Print(struct {
		Written []string `json:"written"`
	}{written}, func(w io.Writer) {
		for _, path := range written {
			fmt.Fprintln(w, "wrote", path)
		}
		fmt.Fprintf(w, "\nnext: allow something in %s, then run: %sopenscope policy check; openscope daemon\n", filepath.Join(f.dir, "grants.yaml"), f.elsewhere())
	})
}

// elsewhere tells the shell where the files are, if not where they are looked for.
func (f *initFlags) elsewhere() string {
	dir, err := filepath.Abs(f.dir)
	if err != nil || dir == defaultConfigDir {
		return ""
	}
	return fmt.Sprintf("export OPENSCOPE_CONFIG=%s OPENSCOPE_SOCKET=%s; ", filepath.Join(dir, "openscope.yaml"), filepath.Join(dir, "openscope.sock"))
}

// check refuses values that the daemon would refuse later.
func (f *initFlags) check(env *term.Env) (token string, err error) {
	if f.pin != "" && f.relay == "" {
		return "", term.Errorf(term.Usage, "--relay-pin needs --relay")
	}
	if f.relay != "" {
		if err := wire.CheckAddress(strings.ToLower(f.relay)); err != nil {
			return "", term.Errorf(term.Usage, "--relay: %w", err)
		}
	}
	if f.pin != "" {
		if _, err := wire.ParsePin(f.pin); err != nil {
			return "", term.Errorf(term.Usage, "--relay-pin: %w", err)
		}
	}
	if f.token == "" {
		return "", nil
	}
	if token, err = env.Secret(f.token); err != nil {
		return "", err
	}
	if _, err := wire.ParseToken(token); err != nil {
		return "", term.Errorf(term.Usage, "--token: %w", err).WithHint("run at the relay: openscope-relay token new NAME")
	}
	return token, nil
}

func (f *initFlags) refuseOverwriting(files []starterFile) error {
	if f.force {
		return nil
	}
	for _, file := range files {
		path := filepath.Join(f.dir, file.name)
		if _, err := os.Lstat(path); err == nil {
			return term.Errorf(term.Config, "%s exists already", path).WithHint("to begin anew, add --force; the identity stays")
		}
	}
	return nil
}

// stateDir is where the identity and the log go: the system's place for the
// system's configuration, and beside any other.
func (f *initFlags) stateDir() string {
	if filepath.Clean(f.dir) == defaultConfigDir {
		return "/var/lib/openscope"
	}
	return filepath.Join(f.dir, "state")
}

// writeStarter replaces a file whole, and follows no link that stands there.
func writeStarter(path string, file starterFile) error {
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, file.mode)
	if err != nil {
		return err
	}
	_, err = tmp.Write(file.data)
	if err := errors.Join(err, tmp.Chmod(file.mode), tmp.Sync(), tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// configuration is openscope.yaml with its comments.
func (f *initFlags) configuration() string {
	relays := "#relays:\n#  - address: relay.example.com:4433\n#    pin: sha256:...            # only for a self-signed certificate"
	if f.relay != "" {
		relays = "relays:\n  - address: " + strings.ToLower(f.relay)
		if f.pin != "" {
			relays += "\n    pin: " + f.pin
		}
	}
	state, socket := "state", "openscope.sock"
	if filepath.Clean(f.dir) == defaultConfigDir {
		state, socket = f.stateDir(), defaultSocket
	}
	return fmt.Sprintf(configTemplate, relays, state, socket)
}

const configTemplate = `# The daemon's own configuration; names are relative to this file. Unknown keys
# are errors.

# The ways out, at most three.
%s

# Relays are reached by QUIC, or by TLS over TCP where UDP is blocked; or through
# an HTTP proxy: this one, or that of HTTPS_PROXY and NO_PROXY.
#proxy:
#  url: http://proxy.example.com:3128
#  credentials_file: proxy-credentials   # USER:PASSWORD, mode 0600
#  ca_file: proxy-ca.pem                 # authenticates an https:// proxy, never a relay
#  exempt: 10.0.0.0/8,.example.com

# What comes from a relay is read by a process that has this user's rights, and may
# open next to nothing. A daemon that is not root has only its own user for it.
#net_user: openscope-net

# This deployment's token for them, mode 0600.
token_file: token

# The identity and the log.
state_dir: %s

# Where the commands ask. Commands find it elsewhere by OPENSCOPE_SOCKET.
socket: %s

# Who may call what, what can be called, and who can be shared with.
grants: grants.yaml
verbs: verbs.yaml
recipients: recipients.yaml

# No session lives longer than 30 minutes; this can only lower it.
#max_ttl: 30m

# How long a call that has to be approved waits for the answer.
#approve_within: 2m

# The log: where a file of it is full, and a second place for every entry, which
# is syslog or a file, best on another machine. Required, its failure stops
# everything, as the log's own does.
#log:
#  file_size: 64MiB
#  copy: {to: syslog, required: true}

# A command that tells people what happens in their sessions. It runs as whoever
# opened the session, with one JSON object on its standard input.
#notify:
#  command: [/usr/local/bin/openscope-notify]
#  events: [connected, waiting, refused, ended]
#  timeout: 10s
`
