package tunnel

// Rung is a way to reach a relay (wire/README.md §12).
type Rung uint8

// The rungs, best first.
const (
	QUIC  Rung = iota // on UDP
	TCP               // TLS on TCP
	Proxy             // TLS on TCP, through an HTTP proxy
)

// Rungs are all there are, best first.
var Rungs = []Rung{QUIC, TCP, Proxy}

var rungNames = [...]string{QUIC: "quic", TCP: "tcp", Proxy: "proxy"}

// String is how people and scripts are told of a rung.
func (r Rung) String() string {
	if int(r) < len(rungNames) {
		return rungNames[r]
	}
	return "none"
}
