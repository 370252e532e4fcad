package mcp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"openscope/wire/call"
)

// The rhythm of progress: often enough to read along, rarely enough not to
// drown a host, and never so rarely that it takes a call for dead.
const (
	progressEvery = 250 * time.Millisecond
	progressAlive = 10 * time.Second
)

// maxWaiting bounds the notices that wait to be told.
const maxWaiting = 16

// progress tells an agent what comes while a call runs. Its goroutine is the
// only one that waits for the host.
type progress struct {
	request   *mcp.CallToolRequest
	token     any
	remaining func() time.Duration
	began     time.Time

	mu      sync.Mutex // guards what is below
	streams [2]*recent
	notices []string
	bytes   uint64

	told float64 // the goroutine's: progress must grow
}

func newProgress(request *mcp.CallToolRequest, remaining func() time.Duration) *progress {
	return &progress{
		request: request, token: request.Params.GetProgressToken(), remaining: remaining,
		began: time.Now(), streams: [2]*recent{newRecent(), newRecent()},
	}
}

// stream is a writer beside the call's own, for stdout or stderr.
func (p *progress) stream(s call.Stream) streamProgress { return streamProgress{p, int(s) - 1} }

type streamProgress struct {
	p *progress
	i int
}

func (w streamProgress) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.bytes += uint64(len(b))
	if w.p.token != nil {
		w.p.streams[w.i].add(b)
	}
	return len(b), nil
}

// note keeps a sentence of ours, or the daemon's printable one, to be told.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.notices) < maxWaiting {
		p.notices = append(p.notices, text)
	}
}

// run tells of progress until the context ends, and then what is left. An agent
// that asked for no progress is told none.
func (p *progress) run(ctx context.Context) {
	if p.token == nil {
		return
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			p.flush(context.WithoutCancel(ctx))
			return
		case now := <-tick.C:
			if p.flush(ctx) {
				last = now
			} else if now.Sub(last) >= progressAlive {
				last = now
				p.tell(ctx, fmt.Sprintf("running for %s; the session lasts another %s",
					now.Sub(p.began).Round(time.Second), p.remaining().Round(time.Second)))
			}
		}
	}
}

// flush tells what has come, and reports whether anything had.
func (p *progress) flush(ctx context.Context) bool {
	p.mu.Lock()
	messages := p.notices
	p.notices = nil
	for i, name := range []string{"stdout", "stderr"} {
		if m := p.streams[i].take(name); m != "" {
			messages = append(messages, m)
		}
	}
	p.mu.Unlock()
	for _, m := range messages {
		p.tell(ctx, m)
	}
	return len(messages) > 0
}

func (p *progress) tell(ctx context.Context, message string) {
	p.mu.Lock()
	p.told = max(p.told+1, float64(p.bytes))
	p.mu.Unlock()
	// A host that is gone ends the whole server; there is nothing to do here.
	_ = p.request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
		ProgressToken: p.token, Progress: p.told, Message: message,
	})
}
