// Package acme has a certificate issued, and issued again before it ends, by an
// authority that speaks ACME (RFC 8555), which asks for proof of the name on the
// relay's own TCP port (TLS-ALPN-01, RFC 8737).
//
//	acme.go   which certificate is shown, and when it is due
//	order.go  what is said to the authority
//	files.go  what is kept: two keys and a chain, readable by the owner alone
//
// It knows nothing of what the relay does. The certificate's key stays the same
// for ever, so that a daemon may pin it: a renewal changes names and times only.
// The openscope-relay command imports it.
package acme
