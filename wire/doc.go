// Package wire is what every party on the network shares, the relay included:
// rendezvous ids, the proofs a relay verifies, the messages it is sent, and the
// limits everybody keeps. Its specification is wire/README.md.
//
// It is not the encrypted channel (wire/channel), nor anything said inside it
// (wire/call): a relay imports this package and must be able to learn nothing
// from it. It uses the standard library only, and every package may import it.
package wire
