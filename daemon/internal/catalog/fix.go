package catalog

import "errors"

// fixed is an error that says how to mend what it is about.
type fixed struct {
	error
	fix string
}

func (e *fixed) Unwrap() error { return e.error }

// Hint is the fix, for the line below the error.
func (e *fixed) Hint() string { return e.fix }

// withFix adds the fix to an error; one that has a fix already keeps it.
func withFix(err error, fix string) error {
	if _, has := errors.AsType[*fixed](err); has || err == nil {
		return err
	}
	return &fixed{err, fix}
}
