// Package bench holds the tests that no single package can: whole sessions with
// real processes, the import arrows (arrows_test.go), and the benchmarks of the
// hot path. bench/demo shows the product at work.
//
// It has no code of its own outside its tests, and nothing imports it.
package bench
