// Package handle is the text that people hand over: the handle of a session,
// the keys of a recipient, and the words that are compared over the phone
// (wire/README.md §2, §4 and §10).
//
// It seals and opens nothing: that is wire/channel's. Client and daemon import
// it; the relay must not link it.
package handle
