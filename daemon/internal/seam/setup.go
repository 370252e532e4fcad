package seam

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"openscope/wire"
)

// Setup is what a net half is told first.
type Setup struct {
	// Relays are the ways out; Roots, in PEM, authenticate one that has no pin,
	// and none means the system's.
	Relays []wire.Relay
	Roots  []byte
	Proxy  Proxy
	// Level is from where on it logs.
	Level slog.Level
	// TryOnly has it stand on no relay: it only tries the ways to them.
	TryOnly bool
}

// Proxy is the HTTP proxy through which relays are reached; the zero Proxy is
// none. Its URL may hold a password: nothing prints it.
type Proxy struct {
	// URL is http://[USER:PASSWORD@]HOST[:PORT], or https://….
	URL string
	// Exempt is a list as that of NO_PROXY.
	Exempt string
	// CA, in PEM, authenticates an https:// proxy, and never a relay.
	CA []byte
}

// Format prints no part of it, for its URL may hold a password.
func (Proxy) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(a proxy)") }

// LogValue hides it from log handlers.
func (Proxy) LogValue() slog.Value { return slog.StringValue("(a proxy)") }

// Confinement is how a net half says that it is held.
type Confinement struct {
	// Landlock is the kernel's version of it; 0 where it holds nothing.
	Landlock int
	// NoNewPrivileges and Syscalls say that it can gain nothing by executing, and
	// that system calls it has no use for are refused.
	NoNewPrivileges, Syscalls bool
}

// Rungs are the ways to a relay, best first (wire/README.md §12).
var Rungs = []string{"quic", "tcp", "proxy"}

// Tried is what came of one way to one relay.
type Tried struct {
	Kind    TriedKind
	Took    time.Duration
	Problem string // words for a person
	Host    string // that somebody else answers for, where that is the problem
}

// TriedKind is how a try ended.
type TriedKind uint8

// How a try can end.
const (
	TriedOK TriedKind = iota
	TriedFailed
	TriedTokenRefused
	TriedImpostor
	TriedNoProxy // there is none to try
	triedKinds
)
