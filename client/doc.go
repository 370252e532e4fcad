// Package client is the recipient's side of a session: it connects, verifies
// what it is told, and calls.
//
// It decides nothing and trusts nobody: the relay is believed about nothing,
// the daemon only once it has proved the fingerprint that a person confirmed,
// and output only when the daemon has signed how much of it there was. It shows
// nothing and asks nothing; that is for the commands. The openscope-reflect-client
// command imports it; nothing of the daemon's may.
package client
