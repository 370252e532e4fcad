package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/principal"
)

// Notify is a command that tells people what happens in their sessions: it runs
// as the issuer of the session, with one JSON object on its standard input, and
// nothing of it is shown to anybody. The zero Notify tells nobody.
type Notify struct {
	Argv    []string
	Events  []string      // some of NotifyEvents; none means all
	Timeout time.Duration // zero means 10 seconds
}

// What can be told.
const (
	notifyConnected = "connected"
	notifyWaiting   = "waiting" // for an approval
	notifyRefused   = "refused"
	notifyEnded     = "ended"
)

var notifyEvents = []string{notifyConnected, notifyWaiting, notifyRefused, notifyEnded}

// Bounds of notifications: of those that wait to be told, of the commands that
// run at a time, and of how often a session's refusals are told.
const (
	maxNotices       = 64
	notifiers        = 2
	notifyTimeout    = 10 * time.Second
	maxNotifyTimeout = time.Minute
	refusalsEvery    = 10 * time.Second
)

func (n Notify) check(uid int) error {
	switch {
	case len(n.Argv) == 0 && (len(n.Events) > 0 || n.Timeout != 0):
		return fmt.Errorf("notify: there is no command")
	case len(n.Argv) == 0:
		return nil
	case !filepath.IsAbs(n.Argv[0]):
		return fmt.Errorf("notify.command: %q is not an absolute path", n.Argv[0])
	case n.Timeout < 0 || n.Timeout > maxNotifyTimeout:
		return fmt.Errorf("notify.timeout: %s is not between 0 and %s", n.Timeout, maxNotifyTimeout)
	}
	for _, name := range n.Events {
		if !slices.Contains(notifyEvents, name) {
			return fmt.Errorf("notify.events: there is no %q, only %v", name, notifyEvents)
		}
	}
	// It runs as whoever opens a session: none of them may be able to change it.
	if err := policy.CheckProtected(n.Argv[0], uid); err != nil {
		return fmt.Errorf("notify.command: %w", err)
	}
	return nil
}

// notice is what the command reads.
type notice struct {
	Event     string          `json:"event"`
	Time      time.Time       `json:"time"`
	Session   string          `json:"session"`
	Issuer    string          `json:"issuer"`
	Agent     string          `json:"agent"`
	Recipient string          `json:"recipient,omitempty"`
	From      string          `json:"from,omitempty"`
	Call      string          `json:"call,omitempty"` // the name to answer by
	Verb      string          `json:"verb,omitempty"`
	Params    []control.Param `json:"params,omitempty"`
	Line      string          `json:"line,omitempty"` // what the call comes to
	Cause     string          `json:"cause,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Count     int             `json:"count,omitempty"` // of refusals since the last time
}

// notifier queues notices and has them told. Nothing waits for it: what does not
// fit is dropped and counted in the daemon's own log.
type notifier struct {
	cfg    Notify
	run    func(context.Context, executor.Job) executor.Outcome
	clock  func() time.Duration // boot
	logger *slog.Logger
	queue  chan notice

	mu       sync.Mutex
	refusals map[string]*tally // by session
	dropped  tally
}

func newNotifier(cfg Notify, c *core) *notifier {
	if cfg.Timeout == 0 {
		cfg.Timeout = notifyTimeout
	}
	if len(cfg.Events) == 0 {
		cfg.Events = notifyEvents
	}
	return &notifier{
		cfg: cfg, run: c.local.Execute, clock: c.clock.Boot, logger: c.logger,
		queue: make(chan notice, maxNotices), refusals: make(map[string]*tally),
	}
}

// serve tells what is queued until the context ends.
func (n *notifier) serve(ctx context.Context) {
	if len(n.cfg.Argv) == 0 {
		return
	}
	var telling sync.WaitGroup
	for range notifiers {
		telling.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case what := <-n.queue:
					n.tell(ctx, what)
				}
			}
		})
	}
	telling.Wait()
}

// put queues a notice, unless nobody wants it.
func (n *notifier) put(what notice) {
	if len(n.cfg.Argv) == 0 || !slices.Contains(n.cfg.Events, what.Event) {
		return
	}
	select {
	case n.queue <- what:
	default:
		if count, due := n.dropped.note(n.clock(), refusalsEvery); due {
			n.logger.Warn("notifications were dropped: the command does not keep up", "count", count)
		}
	}
}

// tell runs the command once, as the issuer.
func (n *notifier) tell(ctx context.Context, what notice) {
	text, err := json.Marshal(what)
	if err != nil {
		n.logger.Warn("a notification could not be written", "error", err)
		return
	}
	issuer, err := principal.Lookup(what.Issuer)
	if err != nil {
		n.logger.Warn("a notification could not be told", "session", what.Session, "error", err)
		return
	}
	done := n.run(ctx, executor.Job{
		Argv: n.cfg.Argv, Timeout: n.cfg.Timeout, Stdin: append(text, '\n'),
		As: executor.Identity{Name: issuer.Name, UID: issuer.UID, GID: issuer.GID, Groups: issuer.GIDs},
	})
	if done.Err != nil || done.TimedOut || done.Status != 0 {
		n.logger.Warn("the notification command failed", "session", what.Session, "event", what.Event,
			"status", done.Status, "timed_out", done.TimedOut, "error", done.Err)
	}
}

// recorded makes notices of the entries of the log that are worth one.
func (n *notifier) recorded(e audit.Event, at time.Time) {
	if len(n.cfg.Argv) == 0 || e.Session == "" || e.Issuer == nil {
		return
	}
	what := notice{
		Time: at, Session: e.Session, Issuer: e.Issuer.User, Agent: e.Issuer.Agent, Recipient: e.Recipient,
		From: e.From, Verb: e.Verb, Cause: e.Cause, Reason: e.Reason,
	}
	switch e.Kind {
	case "connect":
		what.Event = notifyConnected
	case "deny", "refuse":
		var due bool
		if what.Count, due = n.refused(e.Session, max(1, e.Count)); !due {
			return
		}
		what.Event = notifyRefused
	case "revoke", "expire", "close":
		n.forget(e.Session)
		what.Event = notifyEnded
	default:
		return
	}
	n.put(what)
}

// refused counts a session's refusals; they are told once in [refusalsEvery], so
// that a recipient cannot have commands run at will.
func (n *notifier) refused(session string, count int) (since int, due bool) {
	n.mu.Lock()
	t := n.refusals[session]
	if t == nil {
		t = new(tally)
		n.refusals[session] = t
	}
	n.mu.Unlock()
	for range min(count, 1000) {
		if told, now := t.note(n.clock(), refusalsEvery); now {
			since, due = since+told, true
		}
	}
	return since, due
}

func (n *notifier) forget(session string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.refusals, session)
}

// waits makes a notice of a call that waits for an approval.
func (n *notifier) waits(act *action, w control.WaitingCall) {
	s := act.session
	n.put(notice{
		Event: notifyWaiting, Time: w.Since, Session: s.ID, Issuer: s.Issuer.User, Agent: s.Issuer.Agent,
		Recipient: s.Recipient.Alias, Call: w.Call, Verb: w.Verb, Params: w.Params, Line: w.Line,
	})
}
