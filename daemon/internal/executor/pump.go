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

// How much a pump reads at a time: at first, and from a source that has more, what
// a pipe holds. Each write may wait for somebody in another process.
const (
	firstRead = 16 << 10
	maxRead   = 64 << 10
)

// What a pump is doing. Only the pump moves between reading and writing, and
// nothing brings it back from abandoned: so no Write begins after that.
const (
	pumpReads int32 = iota
	pumpWrites
	pumpAbandoned
)

// pump carries one stream of output from the command to the job's writer, in a
// goroutine of its own.
type pump struct {
	name string // "stdout", "stderr"
	src  io.Reader
	shut func() // makes a Read of src return; may be called twice
	dst  io.Writer

	state atomic.Int32
	steps atomic.Uint64 // Reads and Writes that have returned
	done  chan struct{}
	err   error // the writer's; readable when done is closed
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
	buf := make([]byte, firstRead)
	for {
		n, end := p.src.Read(buf)
		p.steps.Add(1)
		if n > 0 {
			more, err := p.write(buf[:n])
			if err != nil || !more {
				return err
			}
		}
		if n == len(buf) && n < maxRead {
			buf = make([]byte, maxRead) // there is more than one read takes
		}
		if end != nil {
			return nil
		}
	}
}

// write reports whether the pump is to go on.
func (p *pump) write(b []byte) (bool, error) {
	if !p.state.CompareAndSwap(pumpReads, pumpWrites) {
		return false, nil
	}
	n, err := p.dst.Write(b)
	p.steps.Add(1)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return false, fmt.Errorf("writing %s: %w", p.name, err)
	}
	return p.state.CompareAndSwap(pumpWrites, pumpReads), nil
}

// drain waits for the pumps to carry what is left, once the command is gone.
// Their sources end by themselves, unless somebody outside the job holds on to
// one: it is shut when it gave nothing for a lull while the pump stood waiting.
// A false return says that ctx ended first and output was left behind.
func drain(ctx context.Context, lull time.Duration, pumps ...*pump) bool {
	tick := time.NewTicker(lull)
	defer tick.Stop()
	for _, p := range pumps {
		seen := p.steps.Load()
		for waiting := true; waiting; {
			select {
			case <-p.done:
				waiting = false
			case <-ctx.Done():
				return settle(pumps)
			case <-tick.C:
				now := p.steps.Load()
				if now == seen && p.state.Load() == pumpReads {
					p.shut()
				}
				seen = now
			}
		}
	}
	return true
}

// settle gives the pumps a last moment and then abandons them. It returns
// false when one was, and waits for those that are not stuck in a Write.
func settle(pumps []*pump) bool {
	late, stop := context.WithTimeout(context.Background(), straggle)
	defer stop()
	whole := true
	for _, p := range pumps {
		select {
		case <-p.done:
			continue
		case <-late.Done():
		}
		whole = false
		was := p.state.Swap(pumpAbandoned)
		p.shut()
		if was == pumpReads {
			<-p.done
		}
	}
	return whole
}

// writeError is the first writer's error among the pumps that have ended.
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
