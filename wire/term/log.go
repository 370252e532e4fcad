package term

import (
	"log/slog"

	"github.com/lmittmann/tint"
)

// Logger writes a program's own log to stderr: for people where that is a
// terminal, as JSON lines elsewhere. Messages are constant; values from
// somebody else belong into attributes, cleaned by whoever logs them. No secret in its text form gets through.
func (e *Env) Logger(level slog.Level) *slog.Logger {
	to := redactor{e.Stderr} // a handler writes each entry at once
	if IsTerminal(e.Stderr) {
		return slog.New(tint.NewTextHandler(to, &tint.Options{Level: level}))
	}
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level}))
}
