//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var errNoReader = errors.New("the reader of the output has gone")

// readerRhythm is how often a pipe is asked whether it is still read.
const readerRhythm = 200 * time.Millisecond

// whileRead is a context that ends when nobody reads w any more: a verb that
// prints nothing for a while would not meet the broken pipe by itself.
func whileRead(ctx context.Context, w io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	file, ok := w.(*os.File)
	if !ok || !isPipe(file) {
		return ctx, func() { cancel(nil) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(readerRhythm)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			poll := []unix.PollFd{{Fd: int32(file.Fd())}}
			if n, err := unix.Poll(poll, 0); err == nil && n > 0 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(errNoReader)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// isPipe keeps to what poll tells the same of everywhere.
func isPipe(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}
