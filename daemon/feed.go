package daemon

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/session"
	"openscope/wire/call"
)

// feed tells watchers what happens in their sessions: what the log has, as it is
// entered, and besides that output and waiting calls. It is for people's eyes
// only: nothing depends on it, and nothing waits for it. A watcher that does not
// keep up loses events, and learns how many.
type feed struct {
	any atomic.Int32 // watchers there are, so that without any nothing is copied

	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// Bounds of the feed.
const (
	maxWatchers       = 64        // in all
	maxWatchersOfUser = 8         // of one user
	maxQueuedOutput   = 256 << 10 // bytes for one watcher
	maxQueuedEvents   = 1024
)

// watcher is one reader of a session's events, and what it has not read yet.
type watcher struct {
	session string
	uid     uint32
	wake    chan struct{} // takes one

	mu     sync.Mutex
	queue  []control.Event
	bytes  int // of output in queue
	missed int
}

func newFeed() *feed { return &feed{watchers: make(map[*watcher]struct{})} }

// enter makes a watcher of the session for the user; the caller owes leave.
func (f *feed) enter(sessionID string, uid uint32) (*watcher, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := 0
	for w := range f.watchers {
		if w.uid == uid {
			own++
		}
	}
	if own >= maxWatchersOfUser || len(f.watchers) >= maxWatchers {
		return nil, control.Errorf(control.Limited, "%d sessions are watched already", own).
			WithHint("leave another watch first")
	}
	w := &watcher{session: sessionID, uid: uid, wake: make(chan struct{}, 1)}
	f.watchers[w] = struct{}{}
	f.any.Add(1)
	return w, nil
}

func (f *feed) leave(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
	f.any.Add(-1)
}

// publish hands the event to those who watch the session; empty is every one.
func (f *feed) publish(sessionID string, e control.Event) {
	if f.any.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		if sessionID == "" || w.session == sessionID {
			w.put(e)
		}
	}
}

// put queues the event, or counts it as missed. Output gives way first, so that
// a flood of it hides nothing that has to be answered.
func (w *watcher) put(e control.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= maxQueuedEvents || len(e.Data) > 0 && w.bytes+len(e.Data) > maxQueuedOutput {
		w.missed++
	} else {
		w.queue = append(w.queue, e)
		w.bytes += len(e.Data)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take is what has come since the last time, and how much of it was lost.
func (w *watcher) take() (events []control.Event, missed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, missed = w.queue, w.missed
	w.queue, w.bytes, w.missed = nil, 0, 0
	return events, missed
}

// recorded passes on an entry of the log.
func (f *feed) recorded(e audit.Event, at time.Time) {
	if f.any.Load() == 0 || e.Session == "" && e.Kind != "reload" {
		return
	}
	event := control.Event{
		Time: at, Kind: e.Kind, Call: e.Call, Verb: e.Verb, Decision: e.Decision, Cause: e.Cause, Status: e.Status,
		From: e.From, Count: e.Count,
	}
	if e.Session != "" { // the reason of a bad reload names files
		event.Reason = e.Reason
	}
	for _, p := range e.Params {
		event.Params = append(event.Params, control.Param{Name: p.Name, Value: p.Value})
	}
	if e.Stdout != nil && e.Stderr != nil {
		event.StdoutBytes, event.StderrBytes = e.Stdout.Bytes, e.Stderr.Bytes
	}
	f.publish(e.Session, event)
}

// tee shows watchers what was sent to the recipient, once it was.
func (f *feed) tee(sessionID string, id call.ID, clock session.Clock, to sink) sink {
	return func(ctx context.Context, s call.Stream, data []byte) (int, error) {
		n, err := to(ctx, s, data)
		if n > 0 && f.any.Load() > 0 {
			stream := "stdout"
			if s == call.Stderr {
				stream = "stderr"
			}
			f.publish(sessionID, control.Event{
				Time: clock.Wall(), Kind: control.EventOutput, Call: id.String(), Stream: stream, Data: bytes.Clone(data[:n]),
			})
		}
		return n, err
	}
}
