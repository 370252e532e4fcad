// Package control is the daemon's local socket: what the issuer's commands ask,
// as JSON over HTTP over a unix socket. Who is asking comes from the kernel, by
// way of the context the daemon gives every connection; nothing in a message
// can say it.
//
// It decides nothing: package daemon implements [Daemon], and checks every
// right. The openscope command uses [Client].
package control
