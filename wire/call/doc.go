// Package call is what is said inside the encrypted channel: requests, output,
// results, and the words around them. Each record's body has a file of its own,
// encoder beside parser; the bytes are drawn above them and specified in
// wire/README.md §6.
//
// It is not the channel: it never encrypts, reads or writes a connection, and it
// judges no request. The relay must not link it.
package call
