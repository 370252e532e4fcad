//go:build !long

package bench

import "time"

// hostileSeeds is how often each row of the hostile relay is tried.
const hostileSeeds = 20

// floodedStreams is how many streams a seed of the flood opens: 10,000 in all.
const floodedStreams = 500

const (
	msg1Flood = 2 * time.Second
	fullFlood = false
)
