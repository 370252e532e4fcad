//go:build !long

package client

// flooded is how much a hostile daemon sends of each kind.
const flooded = 64 << 20
