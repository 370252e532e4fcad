package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// WatchRequest asks for what happens in one session, as it happens.
type WatchRequest struct {
	ID string `json:"id"`
}

// The kinds of events that the log does not have.
const (
	EventSession = "session" // the session as it stands; the first event, and after every change
	EventWaiting = "waiting" // a call waits for an answer
	EventOutput  = "output"  // output of a call, as it was sent to the recipient
	EventMissed  = "missed"  // the watcher was too slow for this many events
)

// Event is one thing that happened in a session. Its kind is one of the log's, or
// one of the above. Text in it may be anybody's.
type Event struct {
	Time    time.Time    `json:"time"`
	Kind    string       `json:"kind"`
	Session *Share       `json:"session,omitempty"`
	Waiting *WaitingCall `json:"waiting,omitempty"`

	Call     string  `json:"call,omitempty"` // the recipient's id for it
	Verb     string  `json:"verb,omitempty"`
	Params   []Param `json:"params,omitempty"`
	Decision string  `json:"decision,omitempty"`
	Cause    string  `json:"cause,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	Status   *int    `json:"status,omitempty"`
	From     string  `json:"from,omitempty"`
	Count    int     `json:"count,omitempty"`

	Stream      string `json:"stream,omitempty"` // stdout or stderr
	Data        []byte `json:"data,omitempty"`
	StdoutBytes uint64 `json:"stdout_bytes,omitempty"`
	StderrBytes uint64 `json:"stderr_bytes,omitempty"`
}

// watchLine is one line of a watch's answer.
type watchLine struct {
	Event *Event   `json:"event,omitempty"`
	Error *failure `json:"error,omitempty"`
}

// watchWrite is how long one event may take to be written: a watcher that reads
// nothing for so long is cut off, and may come again.
const watchWrite = 10 * time.Second

// watch streams events until the session is over or the watcher goes.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	var req WatchRequest
	if err := decode(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	out, enc, wrote := http.NewResponseController(w), json.NewEncoder(w), false
	emit := func(line watchLine) error {
		wrote = true
		if err := out.SetWriteDeadline(time.Now().Add(watchWrite)); err != nil {
			return err
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
		return out.Flush()
	}
	err := s.daemon.Watch(r.Context(), req, func(e Event) error { return emit(watchLine{Event: &e}) })
	switch {
	case err != nil && !wrote:
		writeError(w, err)
	case err != nil:
		_ = emit(watchLine{Error: newFailure(err)}) // the watcher may have gone
	}
}

// Watch implements Daemon: events are handed over as they come. It returns nil
// once the session is over and everything of it has been told.
func (c *Client) Watch(ctx context.Context, r WatchRequest, emit func(Event) error) error {
	body, err := c.post(ctx, "share/watch", r)
	if err != nil {
		return err
	}
	defer body.Close()
	lines, over := json.NewDecoder(body), false
	for {
		var line watchLine
		err := lines.Decode(&line)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && over:
			return nil
		case err != nil:
			return Errorf(Unreachable, "the daemon went away")
		case line.Error != nil:
			return line.Error.err()
		case line.Event == nil:
			continue
		}
		over = line.Event.Session != nil && line.Event.Session.State == StateEnded
		if err := emit(*line.Event); err != nil {
			return err
		}
	}
}
