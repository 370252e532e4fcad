//go:build !unix

package main

import (
	"context"
	"io"
)

// whileRead has no way here to ask whether somebody still reads w: the next write
// tells.
func whileRead(ctx context.Context, _ io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, func() { cancel(nil) }
}
