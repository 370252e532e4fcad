// Command openscope is the daemon inside the closed network, and the commands
// of those who share through it.
package main

import (
	"flag"
	"os"

	"openscope/daemon"
	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// version is the linker's.
var version string

const program = "openscope"

// Where things are unless the environment says otherwise.
const (
	defaultConfigDir = "/etc/openscope"
	defaultConfig    = defaultConfigDir + "/openscope.yaml"
	defaultSocket    = "/run/openscope/openscope.sock"
)

func main() {
	daemon.Shim()
	os.Exit(term.Process(program, root(os.Getenv)))
}

// paths are what the environment decides.
type paths struct{ config, socket string }

func root(getenv func(string) string) *term.Command {
	p := &paths{config: defaultConfig, socket: defaultSocket}
	if v := getenv("OPENSCOPE_CONFIG"); v != "" {
		p.config = v
	}
	if v := getenv("OPENSCOPE_SOCKET"); v != "" {
		p.socket = v
	}
	return &term.Command{
		Name:  program,
		Short: "share a narrowed slice of your own actions with somebody outside, for at most 30 minutes",
		Subcommands: []*term.Command{
			initCommand(),
			daemonCommand(p),
			devCommand(),
			netCommand(),
			{Name: "status", Short: "is the daemon up, and does it reach its relays", Run: p.status},
			{Name: "fingerprint", Short: "print this daemon's fingerprint, for recipients to compare", Run: p.fingerprint},
			doctorCommand(p),
			verbsCommand(p),
			callCommand(p),
			shareCommand(p),
			recipientCommand(p),
			lockdownCommand(p),
			policyCommand(p),
			auditCommand(p),
			term.VersionCommand(version),
		},
	}
}

// daemon is the running daemon, as the commands ask it.
func (p *paths) daemon() *control.Client { return control.Dial(p.socket) }

// agentFlag defines --agent, which most commands need.
func agentFlag(fs *flag.FlagSet, agent *string) {
	fs.StringVar(agent, "agent", "", "the `NAME` in the grants file you act as")
}

func needAgent(agent string) error {
	if agent == "" {
		return term.Errorf(term.Usage, "--agent is needed").WithHint("the grants file names the agents you may act as")
	}
	return nil
}
