// Package passport is the capability algebra: what may be called (Grant), how
// it is narrowed (Spec, Narrow), and the signed object in which it is handed to
// one recipient (Passport). Its specification is passport/README.md.
//
// It is pure: no I/O, no clock, no goroutine, and it decides nothing about
// people: that is the daemon's policy. Daemon and client import it; the relay
// must not link it.
package passport
