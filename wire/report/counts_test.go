//go:build !long

package report

// flipEvery is which of a report's bytes are changed, one after another.
const flipEvery = 13
