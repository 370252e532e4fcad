package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/term"
)

// connect confirms the daemon and reaches the session.
func (o *options) connect(ctx context.Context, env *term.Env) (*client.Session, error) {
	var answers *bufio.Reader
	if term.IsTerminal(env.Stdin) && o.passport != "-" {
		answers = bufio.NewReader(env.Stdin)
	}
	return o.connectAsking(ctx, env, answers)
}

func (o *options) connectAsking(ctx context.Context, env *term.Env, answers *bufio.Reader) (*client.Session, error) {
	s, _, err := o.connectWith(ctx, env, answers, func(*passport.Passport) { o.told.add(changedNotice) },
		func(text string) { fmt.Fprintln(env.Stderr, text) })
	return s, err
}

const changedNotice = "the issuer has changed the session; see: verbs"

// connectWith is connectAsking for a command that acts on a new passport, and
// shows what the daemon tells, itself.
func (o *options) connectWith(ctx context.Context, env *term.Env, answers *bufio.Reader, changed func(*passport.Passport), tell func(string)) (s *client.Session, bearer bool, err error) {
	h, err := o.readHandle(env)
	if err != nil {
		return nil, false, err
	}
	cfg := client.Config{Handle: h, Rand: rand.Reader, StateDir: filepath.Dir(o.knownDaemons)}
	if h.Sealed {
		if cfg.Identity, err = o.readIdentity(); err != nil {
			return nil, false, err
		}
	}
	if cfg.Roots, err = o.roots(); err != nil {
		return nil, false, err
	}
	cfg.Proxy = client.ProxyFromEnvironment(env.Getenv)
	if err := o.confirm(ctx, env, h, answers); err != nil {
		return nil, false, err
	}
	o.told = newTeller()
	cfg.OnNotice = func(s *client.Session, n call.Notice) {
		text := n.Text
		if n.Kind == call.NoticePending && !h.Sealed {
			text += "\ntell the issuer these words: " + strings.Join(s.Words(), " ")
		}
		o.told.add(text)
	}
	cfg.OnPassport, cfg.OnReceipt = changed, o.keepReceipts(env)
	cfg.Redial = true
	cfg.OnConnection = func(lost error) {
		if lost != nil {
			o.told.add("the connection was lost; connecting again")
			return
		}
		o.told.add("connected again")
	}
	if s, err = client.Connect(ctx, cfg); err != nil {
		return nil, false, connectError(ctx, h, err)
	}
	go o.told.run(s.Done(), tell)
	return s, !h.Sealed, nil
}

// leave closes the session; what was told before is shown.
func (o *options) leave(s *client.Session) {
	_ = s.Close() // it has no error to tell of
	o.told.settle()
}

func (o *options) roots() (*x509.CertPool, error) {
	if o.relayCA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.relayCA)
	if err != nil {
		return nil, term.Errorf(term.Config, "%w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, term.Errorf(term.Config, "%s: no certificate in it", o.relayCA)
	}
	return pool, nil
}

// connectError is why there is no session, with the exit code of the contract.
func connectError(ctx context.Context, h handle.Handle, err error) error {
	if ctx.Err() != nil {
		return term.Errorf(term.Interrupted, "interrupted")
	}
	impostor, intercepted := errors.AsType[*client.ImpostorError](err)
	over, isOver := errors.AsType[*client.OverError](err)
	switch {
	case isOver:
		return overError(over)
	case errors.Is(err, client.ErrRefused):
		return term.Errorf(term.Unreachable, "%w", err).WithHint("ask the issuer for a new handle")
	case errors.Is(err, client.ErrWrongDaemon):
		return term.Errorf(term.Denied, "%w: nothing was called", client.ErrWrongDaemon).
			WithHint("tell the issuer: somebody may be answering in their place")
	case errors.Is(err, client.ErrNotForThisKey):
		return term.Errorf(term.Usage, "the handle was changed on its way, or made for another key than yours").
			WithHint("compare the issuer's registered key with: " + program + " key")
	case errors.Is(err, client.ErrProxySettings):
		return term.Errorf(term.Usage, "HTTPS_PROXY: %w", client.ErrProxySettings)
	case intercepted:
		return term.Errorf(term.Unreachable, "cannot reach the relay: %w", impostor).
			WithHint("if a proxy intercepts TLS here, have it exempt " + impostor.Host())
	case errors.Is(err, client.ErrUnreachable):
		return term.Errorf(term.Unreachable, "cannot reach the relay %s", addresses(h)).
			WithHint("check that UDP or TCP to it is allowed from here, or set HTTPS_PROXY")
	}
	return term.Errorf(term.Unreachable, "the session could not be reached: %w", err).
		WithHint("try again; if it goes on, ask the issuer for a new handle")
}

func overError(over *client.OverError) error {
	return term.Errorf(term.Over, "%w", over).WithHint("ask the issuer for a new session if you still need one")
}

func addresses(h handle.Handle) string {
	names := make([]string, len(h.Relays))
	for i, r := range h.Relays {
		names[i] = r.Address
	}
	return strings.Join(names, " or ")
}
