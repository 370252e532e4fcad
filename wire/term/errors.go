package term

import (
	"context"
	"errors"
	"fmt"
)

// Code is an exit code of the contract.
type Code int

// The exit codes, the same for all three programs.
const (
	OK          Code = 0
	Internal    Code = 1   // a bug
	Usage       Code = 2   // a flag, a value, a handle is malformed
	Denied      Code = 3   // final
	NotFound    Code = 4   // no such session, alias, verb, entry
	Failed      Code = 5   // the verb ran and failed or timed out
	Config      Code = 6   // a file is malformed or not protected
	Unreachable Code = 7   // the call never ran
	Limited     Code = 8   // rate, count, output, session
	Over        Code = 9   // the session has ended
	Unknown     Code = 10  // the call may have run
	Interrupted Code = 130 // the remote work was cancelled
)

// Error is what a command ends with: a code, one line, and the next command
// where there is one.
type Error struct {
	Code    Code
	Message string
	Hint    string
	Err     error
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Errorf is an Error; an operand of %w is wrapped.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint names the next command.
func (e *Error) WithHint(hint string) *Error {
	e.Hint = hint
	return e
}

// CodeOf is the exit code an error stands for.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return Internal
}
