// Package daemon is the one place that knows every step of a call.
//
// It has two halves with a seam between them (daemon/internal/seam). The core is
// here, and holds what is worth stealing: the identity key, the policy, the log,
// the executors, the sessions' challenges and call ids. The net half
// (daemon/internal/network) holds what strangers can reach: the relay connections,
// the handshake, the records. It runs in a process of its own, which is the same
// program with other rights (nethalf.go), and they share nothing but the seam's
// messages: the core opens no socket to a relay and believes nothing it is told.
//
//	config.go identity.go rules.go   what the daemon is told
//	daemon.go                        what it is made of
//	core.go connection.go            the core: handshake answers, connections
//	call.go output.go                one call, from the request to its result
//	share_*.go local.go              what the issuer's commands ask for
//	nethalf.go seam.go               the net half: who it is, and how it is started
//
// The daemon is driven by daemon/cmd/openscope and by the tests in bench; no
// other package may import it. It never imports client.
package daemon
