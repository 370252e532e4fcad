package term

import (
	"log/slog"

	"github.com/lmittmann/tint"
)

// Logger writes a program's own log to stderr: for people where that is a
// terminal, as JSON lines elsewhere. Messages are constant; values from
// somebody else belong into attributes, cleaned by whoever logs them.
func (e *Env) Logger(level slog.Level) *slog.Logger {
	if IsTerminal(e.Stderr) {
		return slog.New(tint.NewTextHandler(e.Stderr, &tint.Options{Level: level}))
	}
	return slog.New(slog.NewJSONHandler(e.Stderr, &slog.HandlerOptions{Level: level}))
}
