package daemon

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"

	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// sink takes output of one stream and returns how much of it was sent.
type sink func(ctx context.Context, s call.Stream, data []byte) (int, error)

// output is where a call's two streams go: metered, sent, and hashed as sent.
type output struct {
	sink  sink
	meter *session.Meter

	// set by begin, before the first write
	ctx   context.Context
	stop  context.CancelCauseFunc
	limit uint64
	// set by hide; without credentials there are none
	filters []*executor.Filter

	mu      sync.Mutex // held for counting, never while sending
	total   uint64
	over    bool // the outcome has been read: nothing counts any more
	streams [2]streamOutput
}

// streamOutput is one stream's share: what was sent, in bytes and as a hash.
// Each stream is written by one goroutine of the executor, which the executor
// leaves behind where it is stuck in a write: mu guards both.
type streamOutput struct {
	out    *output
	stream call.Stream
	bytes  uint64
	hash   hash.Hash
}

func newOutput(to sink, m *session.Meter) *output {
	o := &output{sink: to, meter: m}
	for i := range o.streams {
		o.streams[i] = streamOutput{out: o, stream: call.Stream(i + 1), hash: sha256.New()}
	}
	return o
}

// begin sets the limit, and what to do when it is reached.
func (o *output) begin(ctx context.Context, stop context.CancelCauseFunc, limit uint64) {
	o.ctx, o.stop, o.limit = ctx, stop, limit
}

// hide puts a filter before both streams of the job, where there is anything to
// filter. It stands before the counting: what is hashed and charged is what is
// sent.
func (o *output) hide(secrets *executor.Secrets, job *executor.Job) {
	if secrets == nil {
		return
	}
	o.filters = []*executor.Filter{executor.NewFilter(job.Stdout, secrets), executor.NewFilter(job.Stderr, secrets)}
	job.Stdout, job.Stderr = o.filters[0], o.filters[1]
}

// flush sends what the filters held back, once the executor has returned. A
// call that was ended sends nothing more: its writer may still be stuck.
func (o *output) flush() error {
	if o.ctx.Err() != nil {
		return nil
	}
	for _, f := range o.filters {
		if err := f.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (o *output) stream(s call.Stream) io.Writer { return &o.streams[s-1] }

// outcome reads the digests, for good: a write that was left behind stuck, and
// comes free after this, is not part of what is signed.
func (o *output) outcome(cause call.Cause, status int, reason string) outcome {
	suppressed := 0
	for _, f := range o.filters {
		suppressed += f.Found()
	}
	if suppressed > 0 {
		reason = strings.TrimPrefix(fmt.Sprintf("%s; %d of the daemon's own credentials were taken out of the output", reason, suppressed), "; ")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	return outcome{
		cause: cause, status: status, reason: reason, suppressed: suppressed,
		stdout: o.streams[0].digest(), stderr: o.streams[1].digest(),
	}
}

// Write sends what the limits allow. At the limit the call is stopped: what
// was sent stands, and END says why there is no more.
func (s *streamOutput) Write(p []byte) (int, error) {
	allowed := s.out.charge(len(p))
	n, err := s.out.sink(s.out.ctx, s.stream, p[:allowed])
	s.count(p[:n])
	if err != nil {
		return n, err
	}
	if allowed < len(p) {
		s.out.stop(&ended{cause: call.Limit, reason: session.ErrOutput.Error()})
		return n, session.ErrOutput
	}
	return n, nil
}

func (s *streamOutput) count(sent []byte) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.over {
		return
	}
	s.hash.Write(sent)
	s.bytes += uint64(len(sent))
}

// charge takes up to n bytes from the call's limit and the session's.
func (o *output) charge(n int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = o.meter.Output(int(min(uint64(n), o.limit-o.total)))
	o.total += uint64(n)
	return n
}

func (s *streamOutput) digest() call.Digest {
	return call.Digest{Bytes: s.bytes, SHA256: [32]byte(s.hash.Sum(nil))}
}

// withEmptyStreams gives an outcome of a call that never ran the digests of
// two empty streams.
func (o outcome) withEmptyStreams() outcome {
	empty := call.Digest{SHA256: sha256.Sum256(nil)}
	o.stdout, o.stderr = empty, empty
	return o
}

// localSink sends output to the two writers of a local call.
func localSink(stdout, stderr io.Writer) sink {
	return func(_ context.Context, s call.Stream, data []byte) (int, error) {
		if s == call.Stderr {
			return stderr.Write(data)
		}
		return stdout.Write(data)
	}
}

// printable makes text fit for a NOTICE or CLOSE: at most 200 printable bytes
// (wire/README.md §11).
func printable(text string) string {
	out := make([]byte, 0, min(len(text), call.MaxText))
	for _, r := range text {
		if len(out) == call.MaxText {
			break
		}
		if r < 0x20 || r > 0x7e {
			r = '?'
		}
		out = append(out, byte(r))
	}
	return string(out)
}
