package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

func digest(s string) call.Digest {
	return call.Digest{Bytes: uint64(len(s)), SHA256: sha256.Sum256([]byte(s))}
}

func out(c *channel.Conn, id call.ID, offset uint64, text string) {
	_ = c.Write(channel.TypeOut, call.Output{ID: id, Stream: call.Stdout, Offset: offset, Data: []byte(text)}.Append(nil))
}

func TestOnlyAnHonestPassportIsBelieved(t *testing.T) {
	for name, edit := range map[string]func(d *scriptedDaemon, p *passport.Passport) passport.Signed{
		"of another session": func(d *scriptedDaemon, p *passport.Passport) passport.Signed { p.Session[0] ^= 1; return d.signed(*p) },
		"for another key": func(d *scriptedDaemon, p *passport.Passport) passport.Signed {
			p.Subject = d.key.Public().(ed25519.PublicKey)
			return d.signed(*p)
		},
		"of another daemon": func(d *scriptedDaemon, p *passport.Passport) passport.Signed { p.Daemon[0] ^= 1; return d.signed(*p) },
		"signed by another key": func(_ *scriptedDaemon, p *passport.Passport) passport.Signed {
			s, _ := passport.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), *p)
			return s
		},
		"edited": func(d *scriptedDaemon, p *passport.Passport) passport.Signed {
			s := d.signed(*p)
			s[len(s)-1] ^= 1
			return s
		},
		"empty": func(*scriptedDaemon, *passport.Passport) passport.Signed { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := newScriptedDaemon(t, true)
			_, err := d.connect(func(c *channel.Conn) {
				p := d.passport()
				_ = c.Write(channel.TypePassport, edit(d, &p))
				drain(c)
			})
			if !errors.Is(err, errProtocol) {
				t.Errorf("a passport %s: %v", name, err)
			}
		})
	}
}

func TestALateClientIsToldWhyItIsOver(t *testing.T) {
	d := newScriptedDaemon(t, true)
	_, err := d.connect(func(c *channel.Conn) {
		_ = c.Write(channel.TypeClose, call.Close{Cause: call.Revoked, Text: "enough"}.Append(nil))
	})
	over, ok := errors.AsType[*OverError](err)
	if !ok || over.Cause != call.Revoked || over.Reason != "enough" {
		t.Errorf("%v", err)
	}
}

func TestOutputIsCompleteOnlyIfTheDaemonSignedForAllOfIt(t *testing.T) {
	for _, c := range []struct {
		name     string
		say      func(d *scriptedDaemon, c *channel.Conn, id call.ID, request [32]byte)
		cause    call.Cause
		complete bool
		output   string
	}{
		{"all of it", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			out(c, id, 0, "hel")
			out(c, id, 3, "lo")
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest("hello"), Stderr: digest("")}, r)
		}, call.Exited, true, "hello"},
		{"less than was signed for", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			out(c, id, 0, "hel")
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest("hello"), Stderr: digest("")}, r)
		}, call.Exited, false, "hel"},
		{"as much, and different", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			out(c, id, 0, "hellO")
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest("hello"), Stderr: digest("")}, r)
		}, call.Exited, false, "hellO"},
		{"no END", func(_ *scriptedDaemon, c *channel.Conn, id call.ID, _ [32]byte) {
			out(c, id, 0, "hello")
			c.Reset()
		}, call.Cut, false, "hello"},
		{"the stream's end without CLOSE", func(_ *scriptedDaemon, c *channel.Conn, id call.ID, _ [32]byte) {
			out(c, id, 0, "hello")
			_ = c.CloseWrite()
		}, call.Cut, false, "hello"},
		{"CLOSE before END", func(_ *scriptedDaemon, c *channel.Conn, id call.ID, _ [32]byte) {
			out(c, id, 0, "hello")
			_ = c.Write(channel.TypeClose, call.Close{Cause: call.Revoked}.Append(nil))
		}, call.Revoked, false, "hello"},
		{"an END signed by another key", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			body := call.Result{ID: id, Cause: call.Exited, Stdout: digest(""), Stderr: digest("")}.Append(nil)
			_ = c.Write(channel.TypeEnd, body, call.SignResult(ed25519.NewKeyFromSeed(make([]byte, 32)), d.handle.RID, r, body))
		}, call.Cut, false, ""},
		{"an END for another request", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			r[0] ^= 1
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest(""), Stderr: digest("")}, r)
		}, call.Cut, false, ""},
		{"a gap in the output", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			out(c, id, 1, "ello")
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest("hello"), Stderr: digest("")}, r)
		}, call.Cut, false, ""},
		{"output after the END", func(d *scriptedDaemon, c *channel.Conn, id call.ID, r [32]byte) {
			d.end(c, call.Result{ID: id, Cause: call.Exited, Stdout: digest(""), Stderr: digest("")}, r)
			out(c, id, 0, "more")
		}, call.Exited, true, ""},
		{"nonsense", func(_ *scriptedDaemon, c *channel.Conn, _ call.ID, _ [32]byte) {
			_ = c.Write(channel.TypeOut, []byte("nonsense"))
		}, call.Cut, false, ""},
		{"an error", func(_ *scriptedDaemon, c *channel.Conn, _ call.ID, _ [32]byte) {
			_ = c.Write(channel.TypeError, call.Fault{Code: call.FaultInternal, Text: "sorry"}.Append(nil))
		}, call.Cut, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newScriptedDaemon(t, true)
			s, err := d.connect(func(conn *channel.Conn) {
				d.welcome(conn)
				if req, request, ok := nextCall(conn); ok {
					c.say(d, conn, req.ID, request)
				}
				drain(conn)
			})
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			r, err := s.Call(t.Context(), "test.verb", nil, &stdout, &stderr)
			if err != nil || r.Cause != c.cause || r.Complete != c.complete || stdout.String() != c.output {
				t.Errorf("cause %v, complete %v, output %q, %v", r.Cause, r.Complete, stdout.String(), err)
			}
		})
	}
}

func TestAFloodWithoutCreditEndsTheConnection(t *testing.T) {
	d := newScriptedDaemon(t, true)
	s, err := d.connect(func(c *channel.Conn) {
		d.welcome(c)
		req, _, ok := nextCall(c)
		if !ok {
			return
		}
		go drain(c) // so that WINDOWs are not what holds it up
		piece := strings.Repeat("x", 16_000)
		for offset := uint64(0); offset < 64<<20; offset += uint64(len(piece)) {
			if c.Write(channel.TypeOut, call.Output{ID: req.ID, Stream: call.Stdout, Offset: offset, Data: []byte(piece)}.Append(nil)) != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stuck := &stuckWriter{reached: make(chan struct{}), release: make(chan struct{})}
	results := make(chan Result, 1)
	go func() {
		r, _ := s.Call(context.Background(), "test.verb", nil, stuck, io.Discard)
		results <- r
	}()
	<-stuck.reached
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("a daemon that ignores the credit is listened to for ever")
	}
	close(stuck.release)
	if r := <-results; r.Cause != call.Cut || r.Complete || r.Stdout.Bytes > 3<<20 {
		t.Errorf("cause %v, complete %v, %d bytes taken", r.Cause, r.Complete, r.Stdout.Bytes)
	}
}

// stuckWriter blocks in its first Write until it is released.
type stuckWriter struct{ reached, release chan struct{} }

func (w *stuckWriter) Write(p []byte) (int, error) {
	select {
	case <-w.release:
	default:
		close(w.reached)
		<-w.release
	}
	return len(p), nil
}

func TestAStuckReaderHoldsUpNoOtherCall(t *testing.T) {
	d := newScriptedDaemon(t, true)
	s, err := d.connect(func(c *channel.Conn) {
		d.welcome(c)
		first, _, ok := nextCall(c)
		if !ok {
			return
		}
		out(c, first.ID, 0, "never read")
		second, request, ok := nextCall(c)
		if !ok {
			return
		}
		out(c, second.ID, 0, "hello")
		d.end(c, call.Result{ID: second.ID, Cause: call.Exited, Stdout: digest("hello"), Stderr: digest("")}, request)
		drain(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	stuck := &stuckWriter{reached: make(chan struct{}), release: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.Call(context.Background(), "test.verb", nil, stuck, io.Discard)
	}()
	<-stuck.reached
	var stdout bytes.Buffer
	r, err := s.Call(t.Context(), "test.verb", nil, &stdout, io.Discard)
	if err != nil || !r.Complete || stdout.String() != "hello" {
		t.Errorf("beside a stuck call: %v %v %q", r.Cause, err, stdout.String())
	}
	close(stuck.release)
	s.Close()
	<-done
}

func TestAStaleRequestIsSentOnceMoreWithANewID(t *testing.T) {
	for _, c := range []struct {
		name  string
		stale int // how often the daemon says so
		cause call.Cause
	}{{"once", 1, call.Exited}, {"twice", 2, call.Stale}} {
		t.Run(c.name, func(t *testing.T) {
			d := newScriptedDaemon(t, true)
			ids := make(chan call.ID, 4)
			s, err := d.connect(func(conn *channel.Conn) {
				d.welcome(conn)
				for n := 0; ; n++ {
					req, request, ok := nextCall(conn)
					if !ok {
						return
					}
					ids <- req.ID
					cause := call.Exited
					if n < c.stale {
						cause = call.Stale
					}
					d.end(conn, call.Result{ID: req.ID, Cause: cause, Stdout: digest(""), Stderr: digest("")}, request)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Call(t.Context(), "test.verb", nil, io.Discard, io.Discard)
			if err != nil || r.Cause != c.cause {
				t.Errorf("%v, %v", r.Cause, err)
			}
			if first, second := <-ids, <-ids; first == second || len(ids) != 0 {
				t.Errorf("sent as %v and %v, and %d times more", first, second, len(ids))
			}
		})
	}
}

func TestCancellingIsSentAndItsEndAwaited(t *testing.T) {
	d := newScriptedDaemon(t, true)
	s, err := d.connect(func(c *channel.Conn) {
		d.welcome(c)
		req, request, ok := nextCall(c)
		if !ok {
			return
		}
		out(c, req.ID, 0, "begun")
		for {
			typ, body, err := c.Read()
			if err != nil {
				return
			}
			if typ == channel.TypeCancel {
				if id, err := call.ParseCancel(body); err == nil && id == req.ID {
					break
				}
			}
		}
		d.end(c, call.Result{ID: req.ID, Cause: call.Cancelled, Stdout: digest("begun"), Stderr: digest("")}, request)
		drain(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	r, err := s.Call(ctx, "test.verb", nil, begun, io.Discard)
	if err != nil || r.Cause != call.Cancelled || !r.Complete {
		t.Errorf("%v, complete %v, %v", r.Cause, r.Complete, err)
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestAWriterThatFailsCancelsTheCall(t *testing.T) {
	d := newScriptedDaemon(t, true)
	cancelled := make(chan struct{})
	s, err := d.connect(func(c *channel.Conn) {
		d.welcome(c)
		req, _, ok := nextCall(c)
		if !ok {
			return
		}
		out(c, req.ID, 0, "text")
		for {
			typ, _, err := c.Read()
			if err != nil {
				return
			}
			if typ == channel.TypeCancel {
				close(cancelled)
				break
			}
		}
		drain(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("the disk is full")
	_, err = s.Call(t.Context(), "test.verb", nil, writerFunc(func([]byte) (int, error) { return 0, full }), io.Discard)
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Error("the remote work goes on")
	}
}

func TestANewPassportReplacesTheOldAndMovesTheDeadline(t *testing.T) {
	d := newScriptedDaemon(t, true)
	s, err := d.connect(func(c *channel.Conn) {
		p := d.passport()
		p.Serial = 1
		_ = c.Write(channel.TypePassport, d.signed(p))
		p.Serial, p.Expires = 2, p.Expires.Add(5*time.Minute)
		p.Grant.Verbs = append(p.Grant.Verbs, passport.Verb{Name: "test.more", Class: passport.Read})
		_ = c.Write(channel.TypePassport, d.signed(p))
		p.Serial = 1
		_ = c.Write(channel.TypePassport, d.signed(p)) // an old one again
		drain(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if len(s.Passport().Grant.Verbs) != 2 || s.Passport().Serial != 2 {
		t.Errorf("the passport is %+v", s.Passport())
	}
	if left := s.Remaining(); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("%v are left", left)
	}
	if !errors.Is(s.Err(), errProtocol) {
		t.Errorf("an older passport afterwards: %v", s.Err())
	}
}

func TestNothingIsSentWithoutTheRightKey(t *testing.T) {
	d := newScriptedDaemon(t, true)
	joined := false
	join := func(context.Context, tunnel.ClientConfig) (wire.Leg, error) {
		joined = true
		return nil, errors.New("unexpected")
	}
	stranger, err := handle.NewRecipientIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want error
	}{
		"no key":           {Config{Handle: d.handle}, ErrNoIdentity},
		"another key":      {Config{Handle: d.handle, Identity: stranger}, ErrNotForThisKey},
		"an edited handle": {Config{Handle: edited(d.handle), Identity: d.identity}, ErrNotForThisKey},
	} {
		c.cfg.Rand, c.cfg.Join = rand.Reader, join
		if _, err := Connect(t.Context(), c.cfg); !errors.Is(err, c.want) || joined {
			t.Errorf("%s: %v, joined %v", name, err, joined)
		}
	}
}

func edited(h handle.Handle) handle.Handle {
	h.Fingerprint[0] ^= 1
	return h
}

func TestARefusalIsTriedAgain(t *testing.T) {
	d := newScriptedDaemon(t, true)
	tries := 0
	welcome := d.join(func(c *channel.Conn) { d.welcome(c); drain(c) })
	s, err := Connect(t.Context(), Config{
		Handle: d.handle, Identity: d.identity, Rand: rand.Reader,
		Join: func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
			if tries++; tries < 3 {
				return nil, wire.ErrRefused
			}
			return welcome(ctx, cfg)
		},
	})
	if err != nil || tries != 3 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	s.Close()
}

// A call that was lost with its connection runs all the same, if it was asked for
// just now; one that was not is left to whoever asked.
func TestACallThatWasNeverSeenIsSentOnceMoreIfItWasAskedForJustNow(t *testing.T) {
	for name, c := range map[string]struct {
		away  time.Duration // before the client can come back
		calls int
		cause call.Cause
	}{
		"after a moment":      {time.Second, 2, call.Exited},
		"after half a minute": {30 * time.Second, 1, call.Unseen},
	} {
		away := c.away
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newScriptedDaemon(t, true)
				var lost *call.ID // of one connection after the other
				calls := 0
				back := time.Time{}
				join := d.join(func(c *channel.Conn) {
					d.welcome(c)
					if lost != nil {
						d.end(c, call.Result{ID: *lost, Cause: call.Unseen, Stdout: digest(""), Stderr: digest("")}, [32]byte{})
					}
					req, hash, ok := nextCall(c)
					if !ok {
						return
					}
					calls++
					if lost == nil {
						lost, back = &req.ID, time.Now().Add(away)
						c.Reset()
						return
					}
					d.end(c, call.Result{ID: req.ID, Cause: call.Exited, Stdout: digest(""), Stderr: digest("")}, hash)
					drain(c)
				})
				s, err := Connect(t.Context(), Config{
					Handle: d.handle, Identity: d.identity, StateDir: t.TempDir(), Rand: rand.Reader, Redial: true,
					Join: func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
						if time.Now().Before(back) {
							return nil, errNoUDP
						}
						return join(ctx, cfg)
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				r, err := s.Call(t.Context(), "test.verb", nil, io.Discard, io.Discard)
				if err != nil || r.Cause != c.cause || calls != c.calls {
					t.Errorf("%v, %v, and %d calls were sent", r.Cause, err, calls)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
