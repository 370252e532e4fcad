package executor

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// straggle is how long a Write may go on after the context has ended and the
// processes are gone, before it is left behind.
const straggle = 250 * time.Millisecond

// pump carries one stream of output from the command to the job's writer, in a
// goroutine of its own.
type pump struct {
	name string // "stdout", "stderr"
	src  io.Reader
	shut func() // makes a Read of src return; may be called twice
	dst  io.Writer

	reads     atomic.Uint64 // Reads that have returned
	writing   atomic.Bool   // in a Write
	abandoned atomic.Bool   // no further Write
	done      chan struct{}
	err       error // the writer's; readable when done is closed
}

// startPump begins to carry src to dst. When dst fails, fail is called.
func startPump(name string, src io.Reader, shut func(), dst io.Writer, fail context.CancelCauseFunc) *pump {
	if dst == nil {
		dst = io.Discard
	}
	p := &pump{name: name, src: src, shut: shut, dst: dst, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if p.err = p.run(); p.err != nil {
			fail(p.err)
		}
	}()
	return p
}

// run returns the writer's error only. How the source ended says nothing: a
// killed command and a finished one look alike from here.
func (p *pump) run() error {
	buf := make([]byte, 32<<10)
	for {
		n, rerr := p.src.Read(buf)
		p.writing.Store(n > 0)
		p.reads.Add(1)
		if p.abandoned.Load() {
			return nil
		}
		if n > 0 {
			wrote, err := p.dst.Write(buf[:n])
			if err == nil && wrote < n {
				err = io.ErrShortWrite
			}
			if err != nil {
				return fmt.Errorf("writing %s: %w", p.name, err)
			}
			p.writing.Store(false)
		}
		if rerr != nil {
			return nil
		}
	}
}

// drain waits for the pumps to carry what is left, once the command is gone.
// Their sources should end by themselves; when somebody outside the job holds
// on to one, it is shut after it gave nothing for a lull while nobody wrote.
// A false return says that ctx ended first and output was left behind.
func drain(ctx context.Context, lull time.Duration, pumps ...*pump) bool {
	tick := time.NewTicker(lull)
	defer tick.Stop()
	for _, p := range pumps {
		seen := p.reads.Load()
		for waiting := true; waiting; {
			select {
			case <-p.done:
				waiting = false
			case <-ctx.Done():
				return abandon(pumps)
			case <-tick.C:
				now := p.reads.Load()
				if now == seen && !p.writing.Load() {
					p.shut()
				}
				seen = now
			}
		}
	}
	return true
}

// abandon gives the pumps a last moment and then leaves them: none writes
// again, and each ends when the Write it is in does.
func abandon(pumps []*pump) bool {
	last := time.NewTimer(straggle)
	defer last.Stop()
	late := false
	for _, p := range pumps {
		select {
		case <-p.done:
			continue
		default:
		}
		if !late {
			select {
			case <-p.done:
				continue
			case <-last.C:
				late = true
			}
		}
		p.abandoned.Store(true)
		p.shut()
	}
	return !late
}

// writeError is the first writer's error among pumps that have ended.
func writeError(pumps ...*pump) error {
	for _, p := range pumps {
		select {
		case <-p.done:
			if p.err != nil {
				return p.err
			}
		default:
		}
	}
	return nil
}
