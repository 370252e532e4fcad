// Package daemon is the one place that knows every step of a call.
//
// It has two halves with a seam between them (seam.go). The core holds what is
// worth stealing: the identity key, the policy, the log, the executors, the
// sessions' challenges and call ids. The net half holds what strangers can
// reach: the relay connections, the handshake, the records. They share nothing
// but the seam's messages, so that a pipe can take its place.
//
//	config.go identity.go rules.go   what the daemon is told
//	daemon.go                        what it is made of
//	core.go connection.go            the core: handshake answers, connections
//	call.go output.go                one call, from the request to its result
//	share_*.go local.go              what the issuer's commands ask for
//	net.go uplink.go leg.go          the net half
//
// The daemon is driven by daemon/cmd/openscope and by the tests in bench; no
// other package may import it. It never imports client.
package daemon
