// Package tunnel reaches a relay: over QUIC, and later over the rungs below it
// (wire/README.md §3, §12). It is the only package beside relay that knows
// quic-go.
//
// It carries legs and never looks into them. The daemon's tunnel is one
// connection with a control stream and a heartbeat; a client's is one leg.
// Client and daemon import it.
package tunnel
