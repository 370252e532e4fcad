//go:build long

package report

const flipEvery = 1
