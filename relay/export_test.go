package relay

import "time"

// Yields says whether handshakes yield to what is forwarded.
func Yields(r *Relay) bool {
	r.door.pace.mu.Lock()
	defer r.door.pace.mu.Unlock()
	return time.Now().Before(r.door.pace.forwarding)
}
