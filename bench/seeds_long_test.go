//go:build long

package bench

import "time"

// hostileSeeds is how often each row of the hostile relay is tried.
const hostileSeeds = 500

// floodedStreams is how many streams a seed of the flood opens: 10^6 in all.
const floodedStreams = 2_000

// msg1Flood is how long the daemon is flooded; fullFlood says that nothing else
// runs on the machine: only then are times judged.
const (
	msg1Flood = 60 * time.Second
	fullFlood = true
)
