// Package relay is the blind relay: it pairs two legs by a rendezvous id,
// splices them, and forgets (wire/README.md §3).
//
//	relay.go     what a relay is made of, and its life
//	listen.go    one port number, UDP and TCP
//	tcp.go       what comes by TCP, up to where it is as what comes by QUIC
//	accept.go    who is there: a daemon or a client
//	registry.go  which sessions stand, and which legs on them
//	splice.go    bytes from one leg to the other
//	limits.go    what everybody together and each address may take
//	pace.go      when a handshake may begin
//	budget.go    what all of them may make it hold
//	account.go   what each token may take, and has
//	entry.go tokens.go  who may stand here, as a file
//	stats.go     what it counts
//	certfiles.go a certificate from files, read again when they change
//	certificate.go  a certificate of its own, where nobody else gives one
//
// It keeps nothing of a session on disk, knows no key of any channel, and must
// never link a package that could decrypt or parse what it forwards. The
// openscope-relay command, `openscope dev` and tests import it.
package relay
