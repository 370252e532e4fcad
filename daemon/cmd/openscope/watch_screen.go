package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	xterm "golang.org/x/term"

	"openscope/daemon/internal/control"
	"openscope/wire/term"
)

// Rhythm of the screen: the countdown is looked at every tick, and events that
// come faster than frameTime share a frame.
const (
	tickTime  = 250 * time.Millisecond
	frameTime = 30 * time.Millisecond
)

// screen is a terminal in raw mode, on its other page.
type screen struct {
	in, out *os.File
	before  *xterm.State
	drawn   string // what is on it
}

func openScreen(env *term.Env) (*screen, error) {
	in, ok := env.Stdin.(*os.File)
	out, also := env.Stdout.(*os.File)
	if !ok || !also {
		return nil, errors.New("not a terminal")
	}
	before, err := xterm.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("opening the screen: %w", err)
	}
	s := &screen{in: in, out: out, before: before}
	_, err = io.WriteString(out, "\x1b[?1049h\x1b[?25l")
	return s, err
}

// close gives the terminal back as it was.
func (s *screen) close() error {
	_, err := io.WriteString(s.out, "\x1b[0m\x1b[?25h\x1b[?1049l")
	return errors.Join(err, xterm.Restore(int(s.in.Fd()), s.before))
}

// codes are what sets each style off.
var codes = map[style]string{
	plain: "", strong: "\x1b[1m", faint: "\x1b[2m", alert: "\x1b[1;33m", bad: "\x1b[31m", bar: "\x1b[7m",
}

// draw shows the frame, if it is another than the one that is there.
func (s *screen) draw(w *watched, now time.Time) error {
	width, height, err := xterm.GetSize(int(s.out.Fd()))
	if err != nil {
		return fmt.Errorf("drawing: %w", err)
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	rows := frame(w, now, width, height)
	for i, r := range rows {
		if i > 0 {
			b.WriteString("\r\n")
		}
		// Erased before, not after: at the last column that would take it along.
		b.WriteString("\x1b[2K" + codes[r.style] + r.text + "\x1b[0m")
	}
	if len(rows) < height {
		b.WriteString("\r\n\x1b[J")
	}
	if b.String() == s.drawn {
		return nil
	}
	s.drawn = b.String()
	_, err = io.WriteString(s.out, s.drawn)
	return err
}

// keys reads until the process ends: a read of a terminal cannot be taken back.
// What comes in one read with something else was pasted, and is dropped.
func (s *screen) keys(to chan<- string) {
	buffer := make([]byte, 256)
	for {
		n, err := s.in.Read(buffer)
		if err != nil {
			close(to)
			return
		}
		if k := string(buffer[:n]); n == 1 || isEscape(k) {
			to <- k
		}
	}
}

// isEscape reports whether it is one key that a terminal sends as several bytes.
func isEscape(k string) bool {
	return len(k) > 2 && len(k) < 8 && k[0] == '\x1b' && (k[1] == '[' || k[1] == 'O') && !strings.Contains(k[1:], "\x1b") &&
		!slices.ContainsFunc([]byte(k[2:len(k)-1]), func(c byte) bool { return c >= 0x40 })
}

// watchScreen draws until the person leaves.
func (p *paths) watchScreen(ctx context.Context, env *term.Env, id string, readOnly bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &watchLoop{
		p: p, state: newWatched(readOnly), id: id,
		events: make(chan control.Event), lost: make(chan bool), keys: make(chan string), said: make(chan string),
		done: make(chan error, 1),
	}
	go func() { l.done <- p.follow(ctx, id, l.pass(ctx), l.passLost(ctx)) }()
	// What cannot be watched at all is said on the ordinary screen.
	select {
	case err := <-l.done:
		return err
	case e := <-l.events:
		l.state.apply(e, time.Now())
	}
	if l.screen, err = openScreen(env); err != nil {
		return err
	}
	err = l.run(ctx)
	if closing := l.screen.close(); err == nil && closing == nil {
		printWatched(env.Stdout, l.state)
	}
	return err
}

// watchLoop is the one goroutine that has the state.
type watchLoop struct {
	p      *paths
	id     string
	state  *watched
	screen *screen
	events chan control.Event
	lost   chan bool
	keys   chan string
	said   chan string // by the daemon, to a key
	done   chan error
}

func (l *watchLoop) pass(ctx context.Context) func(control.Event) error {
	return func(e control.Event) error {
		select {
		case l.events <- e:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *watchLoop) passLost(ctx context.Context) func(bool) {
	return func(lost bool) {
		select {
		case l.lost <- lost:
		case <-ctx.Done():
		}
	}
}

func (l *watchLoop) run(ctx context.Context) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	go l.screen.keys(l.keys)
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	drawn := time.Time{}
	for {
		if pause := frameTime - time.Since(drawn); pause <= 0 {
			if err := l.screen.draw(l.state, time.Now()); err != nil {
				return err
			}
			drawn = time.Now()
		} else {
			tick.Reset(pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case e := <-l.events:
			l.state.apply(e, time.Now())
		case l.state.lost = <-l.lost:
		case said := <-l.said:
			l.state.note(said, time.Now())
		case err := <-l.done:
			if err != nil {
				return err
			}
			l.state.over, l.done = true, nil
		case <-resized:
			l.screen.drawn = ""
		case <-tick.C:
			tick.Reset(tickTime)
		case k, ok := <-l.keys:
			if !ok || l.press(ctx, k) {
				return nil
			}
		}
	}
}

// press does what a key asks for, beside the drawing, and reports whether that
// is to leave.
func (l *watchLoop) press(ctx context.Context, k string) (leave bool) {
	wanted := l.state.key(k, time.Now())
	switch {
	case k == "\x0c":
		l.screen.drawn = ""
	case wanted.answer != nil:
		verdict := map[bool]string{true: "approved", false: "refused"}[wanted.answer.Approve]
		go l.ask(ctx, verdict+" "+wanted.answer.Call, func() error { return l.p.daemon().AnswerCall(ctx, *wanted.answer) })
	case wanted.revoke:
		go l.ask(ctx, "revoked", func() error {
			_, err := l.p.daemon().RevokeShare(ctx, control.RevokeRequest{ID: l.id})
			return err
		})
	}
	return wanted.leave
}

// ask tells the daemon, and the person what came of it.
func (l *watchLoop) ask(ctx context.Context, done string, f func() error) {
	if err := f(); err != nil {
		done = err.Error()
	}
	select {
	case l.said <- done:
	case <-ctx.Done():
	}
}
