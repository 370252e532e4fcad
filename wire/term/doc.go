// Package term is what the three command lines share: flags that may stand
// anywhere, errors with a hint, exit codes, --json, secrets that need not be in
// argv, and the cleaning of text that came from somebody else (CLI.md is the
// contract).
//
// It knows no command and no protocol. The cmd packages, client and
// daemon/internal/control import it.
package term
