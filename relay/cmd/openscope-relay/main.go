// Command openscope-relay is the blind relay: it pairs the two ends of a
// session and forwards bytes that it cannot read.
package main

import (
	"os"

	"openscope/wire/term"
)

// version is the linker's.
var version string

const program = "openscope-relay"

// defaultState is where the certificate and the tokens are kept.
const defaultState = "/var/lib/openscope-relay"

func main() { os.Exit(term.Process(program, root())) }

func root() *term.Command {
	return &term.Command{
		Name:  program,
		Short: "the blind relay: pairs the two ends of a session, and reads nothing",
		Subcommands: []*term.Command{
			serveCommand(os.Getenv("OPENSCOPE_LISTEN")),
			tokenCommand(),
			term.VersionCommand(version),
		},
	}
}
