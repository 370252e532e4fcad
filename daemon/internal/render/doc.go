// Package render shows the record of a session to people: as Markdown for a
// ticket, and as one HTML page with a timeline, without script and without
// anything from elsewhere.
//
// It is pure: it reads no log, no clock and no file, and signs nothing. What it
// is given may be from anybody; in what it makes, nothing of it is markup or
// acts on a terminal. Only package daemon and its tests may import it.
package render
