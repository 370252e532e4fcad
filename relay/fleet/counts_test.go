//go:build !long

package fleet_test

// kills is how often a server or a relay is killed.
const kills = 4
