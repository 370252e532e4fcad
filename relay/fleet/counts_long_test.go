//go:build long

package fleet_test

const kills = 40
