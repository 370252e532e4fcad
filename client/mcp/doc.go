// Package mcp shows a session to an agent, as a server of the Model Context
// Protocol on a pair of streams: each verb of the passport is a tool.
//
// It confirms no daemon and connects to none: it is handed a session that
// stands. It decides nothing either. Arguments are checked against the passport
// so that an agent hears what is wrong with them at once, and the daemon judges
// every call all the same. Everything an agent reads is made of this package's
// own sentences, of the signed passport, and of output marked as data.
//
// The openscope-reflect-client command imports it.
package mcp
