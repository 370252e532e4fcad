//go:build !long

package bench

// hostileSeeds is how often each row of the hostile relay is tried.
const hostileSeeds = 20
