// Package seam is what the two halves of the daemon say to each other, and how
// they say it through a pipe.
//
// The interfaces are in seam.go. [Authority] is what the net half may ask of the
// core; [Peer] and [Network] are what the core may ask of the net half. At the
// core's end of the pipe stands a [Supervisor], which starts the net half, starts
// it again when it ends, and is the core's Network; at the other end [Serve].
//
//	message.go codec.go   the messages, each bounded, encoded beside decoded
//	pipe.go               one end of a pipe: frames, requests and their answers
//	supervisor.go link.go peer.go    the core's end: nothing that comes is believed
//	half.go core.go       the net half's end, which trusts what the core says
//
// It knows no relay, decides nothing and verifies no signature: that is the
// core's. daemon and daemon/internal/network import it.
package seam
