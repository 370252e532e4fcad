// Package session holds what is open, for whom, and until when.
//
// A [Session] is one delegation: its lifetime ([Lifetime]), what was delegated
// (a passport.Grant), which call ids it has seen ([Ledger]), what it may still
// spend ([Meter]) and, for a bearer session, whose key claimed it ([Claim]).
// Nothing here is written to disk: when the daemon ends, every session has.
//
// It is not the authority: it never asks the policy and runs nothing. Only
// package daemon may import it.
package session
