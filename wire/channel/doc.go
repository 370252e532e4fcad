// Package channel is the end-to-end encrypted channel between a client and a
// daemon: the handshake of wire/README.md §5 and the records of §6, over a leg
// that an untrusted relay has spliced. HPKE lives here and nowhere else.
//
// It is not the policy and knows no call: a record's body is bytes to it. The
// daemon's side never sees the identity key; it asks an [Authority]. Client and
// daemon import it; the relay must not link it.
package channel
