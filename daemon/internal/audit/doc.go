// Package audit is the daemon's log: write-ahead, append-only, chained by hash.
//
// [Log.Append] returns once the entry is on the disk; after the first failure
// it takes nothing more, so that whoever logs before acting stops acting. The
// chain makes an edited, removed or moved entry show ([Verify]). It does not
// make the end show: lines cut off whole, or a log rewritten from some entry
// on by who may write the file, are found only against a head that was kept
// elsewhere: the chain head in the END of a call, or a signed checkpoint over
// the Merkle tree of the lines (checkpoint.go, [VerifyFiles]), where the log is
// opened with a key for them. A file that is full is set aside and the chain
// goes on in a new one (rotate.go).
//
// One entry is one line of printable ASCII, drawn in line.go.
//
// The package decides nothing and knows nothing of sessions or calls: an
// [Event] is text to it. The file belongs to the daemon's user, who could
// rewrite all of it. Only package daemon and its tests may import this package.
package audit
