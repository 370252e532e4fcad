// Package fleet is the deployment tokens of several relays, in a NATS JetStream
// key-value bucket that every node watches. It holds what the token file of a
// single relay holds, public halves only, and nothing of any session: relays
// share nothing on the data path. Whoever may write the bucket decides who may
// stand at every node; who may read it learns names, limits and public keys.
// The openscope-relay command imports it.
package fleet
