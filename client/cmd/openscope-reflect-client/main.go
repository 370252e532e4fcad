// Command openscope-reflect-client is what the recipient of a handle runs: it
// shows which verbs were shared, and calls them.
package main

import (
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"openscope/wire/term"
)

// version is the linker's.
var version string

const program = "openscope-reflect-client"

func main() {
	// A reader that goes away is an error of the write, so that there is time to
	// cancel the remote work.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(term.Process(program, root()))
}

// options are the flags that every command takes, before its name or after it.
type options struct {
	passport, identity, fingerprint, daemon, relayCA, knownDaemons string

	told *teller // of the session that stands
}

// define makes the flags, each with what is known of it so far.
func (o *options) define(fs *flag.FlagSet) {
	fs.StringVar(&o.passport, "passport", o.passport, "the `HANDLE`, @file, or - for standard input (OPENSCOPE_PASSPORT)")
	fs.StringVar(&o.identity, "identity", o.identity, "the `FILE` of your key (OPENSCOPE_IDENTITY)")
	fs.StringVar(&o.fingerprint, "fingerprint", o.fingerprint, "the daemon's 8 `WORDS`, or all 64 hex digits, as the issuer gave them (OPENSCOPE_FINGERPRINT)")
	fs.StringVar(&o.daemon, "daemon", o.daemon, "the `NAME` you know the daemon by; another fingerprint than the remembered one stops")
	fs.StringVar(&o.relayCA, "relay-ca", o.relayCA, "a `FILE` of CA certificates for relays without a pin (OPENSCOPE_RELAY_CA)")
	fs.StringVar(&o.knownDaemons, "known-daemons", o.knownDaemons, "the `FILE` of confirmed daemons (OPENSCOPE_KNOWN_DAEMONS)")
}

// fromEnvironment is what the environment says.
func fromEnvironment(getenv func(string) string) *options {
	or := func(value, otherwise string) string {
		if value != "" {
			return value
		}
		return otherwise
	}
	dir := configDir(getenv)
	return &options{
		passport:     getenv("OPENSCOPE_PASSPORT"),
		identity:     or(getenv("OPENSCOPE_IDENTITY"), filepath.Join(dir, "identity")),
		fingerprint:  getenv("OPENSCOPE_FINGERPRINT"),
		relayCA:      getenv("OPENSCOPE_RELAY_CA"),
		knownDaemons: or(getenv("OPENSCOPE_KNOWN_DAEMONS"), filepath.Join(dir, "known_daemons")),
	}
}

func root() *term.Command {
	o := fromEnvironment(os.Getenv)
	return completing(o, &term.Command{
		Name: program, Args: "[name=value ...]", Flags: o.define,
		Short: "call what somebody inside a closed network has shared with you",
		Long: `Without a command it connects, lists the verbs you may call, and opens a prompt.
The first time it asks for the daemon's fingerprint words: get them from the
issuer by another way than the handle came.`,
		Run: o.prompt, Interactive: true,
		Subcommands: []*term.Command{
			{Name: "verbs", Short: "list what may be called", Flags: o.define, Run: o.verbs},
			callCommand(o),
			narrowCommand(o),
			requestCommand(o),
			mcpCommand(o),
			receiptsCommand(o),
			{Name: "inspect", Short: "say what a handle says, offline", Args: "HANDLE", Flags: o.define, MaxArgs: 1, Run: o.inspect},
			keygenCommand(o),
			{Name: "key", Short: "print your public key, to be registered by the issuer", Flags: o.define, Run: o.key},
			term.VersionCommand(version),
		},
	})
}
