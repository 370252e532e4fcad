package relay

import "time"

// Yields says whether handshakes yield to what is forwarded.
func Yields(r *Relay) bool {
	_, yields := r.door.pace.state(time.Now())
	return yields
}

// NoTurn reports whether newcomers would not be heard now.
func NoTurn(r *Relay) bool {
	full, _ := r.door.pace.state(time.Now())
	return full
}

// LookAgain is for how long a token that was there may be taken to be.
const LookAgain = lookAgain
