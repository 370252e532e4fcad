package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"openscope/wire/term"
)

// meter counts a call's output, and while the call is long and says nothing
// shows how far it is: one line on the terminal that is gone before anything
// else is written there.
type meter struct {
	screen    io.Writer // nil: counts only
	remaining func() time.Duration
	bytes     atomic.Uint64

	mu      sync.Mutex // guards what is below, and what is written to terminals
	shown   bool
	midLine bool // the terminal's last byte is not a newline
	last    time.Time
}

const (
	meterAfter = 2 * time.Second // before that nothing is long
	meterEvery = time.Second
)

// newMeter shows its line on standard error, if that is a terminal.
func newMeter(env *term.Env, remaining func() time.Duration) *meter {
	m := &meter{remaining: remaining, last: time.Now()}
	if term.IsTerminal(env.Stderr) && !env.JSON {
		m.screen = env.Stderr
	}
	return m
}

// metered is a stream in front of w.
type metered struct {
	m        *meter
	to       io.Writer
	terminal bool
}

func (m *meter) stream(to io.Writer, terminal bool) io.Writer { return metered{m, to, terminal} }

func (w metered) Write(p []byte) (int, error) {
	w.m.bytes.Add(uint64(len(p)))
	if !w.terminal || len(p) == 0 {
		return w.to.Write(p)
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.m.erase()
	w.m.midLine, w.m.last = p[len(p)-1] != '\n', time.Now()
	return w.to.Write(p)
}

// erase takes the line away; the lock is held.
func (m *meter) erase() {
	if m.shown {
		fmt.Fprint(m.screen, "\r\x1b[K")
		m.shown = false
	}
}

// clear is erase for whoever else writes to the terminal.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
}

// run shows the line until the context ends, and takes it away.
func (m *meter) run(ctx context.Context) {
	if m.screen == nil {
		return
	}
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			m.clear()
			return
		case now := <-tick.C:
			m.mu.Lock()
			if !m.midLine && now.Sub(began) >= meterAfter && now.Sub(m.last) >= meterEvery {
				m.erase()
				fmt.Fprintf(m.screen, "%s in %s; the session lasts another %s",
					size(m.bytes.Load()), now.Sub(began).Round(time.Second), m.remaining().Round(time.Second))
				m.shown = true
			}
			m.mu.Unlock()
		}
	}
}

// size is a number of bytes for a person.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	value, names := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB"}
	for value >= unit && len(names) > 1 {
		value, names = value/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %s", value, names[0])
}
