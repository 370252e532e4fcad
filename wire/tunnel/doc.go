// Package tunnel reaches a relay: over QUIC, or over the rungs below it
// (wire/README.md §3, §12). It is the only package beside relay that knows
// quic-go, and the only one that knows yamux.
//
//	rung.go dial.go  which ways there are, and taking one
//	quic.go          QUIC, at both ends
//	tcp.go           TLS over TCP, at both ends: tls.go is a client's leg, mux.go a
//	                 daemon's streams, park.go how either waits
//	daemon.go        a daemon's connection: control stream, heartbeat, legs
//	join.go leg.go   a client's
//
// It carries legs and never looks into them. The daemon's tunnel is one
// connection with a control stream and a heartbeat; a client's is one leg.
// Client and daemon import it.
package tunnel
