// Package checkpoint is what is signed about a daemon's log, as both ends read
// it: the endorsement of the key that signs checkpoints, and the checkpoint
// itself (wire/README.md §15).
//
// It knows no log and no file. The daemon's log and the reading of reports use
// it.
package checkpoint
