// Package catalog holds the verbs: what each takes, and what it comes to. It
// reads the root-owned verbs file strictly, gives every parameter its type, and
// refuses at load any verb that would hand a parameter to a shell.
//
// It decides nothing about people (that is the policy's) and runs nothing (that
// is the executor's). Only package daemon may import it.
package catalog
