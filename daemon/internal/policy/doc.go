// Package policy decides: which agent may call what, as whom, and what of it
// may be delegated, by the root-owned grants file. Default deny; deny beats
// allow in every order.
//
// It reads protected files and parses them strictly; it does not know verbs'
// schemas (that is the catalog's), sessions or sockets. Only package daemon
// may import it.
package policy
