package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"openscope/daemon"
	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/relay"
	"openscope/wire"
	"openscope/wire/handle"
	"openscope/wire/term"
)

func devCommand() *term.Command {
	verbose := false
	return &term.Command{
		Name: "dev", Short: "relay, daemon and a session in one process, to try it: nothing to set up",
		Long: `Everything is on loopback, in a folder that is removed at the end, with keys made
for the occasion. It prints the client line to paste into another terminal.`,
		Flags: func(fs *flag.FlagSet) { fs.BoolVar(&verbose, "verbose", false, "log more") },
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			d := &dev{env: env, logger: env.Logger(level)}
			return d.run(ctx)
		},
	}
}

// dev is one try-out: its folder, and what runs in it.
type dev struct {
	env    *term.Env
	logger *slog.Logger
	dir    string
	user   string
	relay  wire.Relay
	token  wire.Token
}

func (d *dev) path(name string) string { return filepath.Join(d.dir, name) }

func (d *dev) run(ctx context.Context) (err error) {
	me, err := user.Current()
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	d.user = me.Username
	if d.dir, err = os.MkdirTemp("", "openscope-dev-"); err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()

	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	if err := d.startRelay(ctx, &running, cancel); err != nil {
		return err
	}
	if err := d.startDaemon(ctx, &running, cancel); err != nil {
		return err
	}
	if err := d.open(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// startRelay starts the embedded relay. When it ends by itself, everything does.
func (d *dev) startRelay(ctx context.Context, running *sync.WaitGroup, fail context.CancelCauseFunc) error {
	certificate, pin, err := relay.SelfSigned(d.path("relay"), rand.Reader, time.Now())
	if err != nil {
		return err
	}
	tokens, err := relay.OpenTokenFile(d.path("relay/tokens"))
	if err != nil {
		return err
	}
	if d.token, err = tokens.Add("dev", rand.Reader); err != nil {
		return err
	}
	conn, listener, err := relay.Listen("127.0.0.1:0")
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	r, err := relay.New(relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:        conn, Listener: listener, Tokens: tokens, Logger: d.logger,
	})
	if err != nil {
		return errors.Join(err, conn.Close(), listener.Close())
	}
	d.relay = wire.Relay{Address: conn.LocalAddr().String(), Pin: &pin}
	running.Go(func() { fail(r.Run(ctx)) })
	return nil
}

func (d *dev) startDaemon(ctx context.Context, running *sync.WaitGroup, fail context.CancelCauseFunc) error {
	if err := d.writeFiles(); err != nil {
		return err
	}
	daemon, err := daemon.New(daemon.Config{
		Relays: []wire.Relay{d.relay}, Token: d.token, StateDir: d.dir, Socket: d.path("openscope.sock"),
		Grants: d.path("grants.yaml"), Verbs: d.path("verbs.yaml"), Recipients: d.path("recipients.yaml"),
		Logger: d.logger, InProcess: true,
	})
	if err != nil {
		return err
	}
	running.Go(func() { fail(daemon.Run(ctx)) })
	select {
	case <-daemon.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// devVerbs come on top of the starter's.
const devVerbs = `  dev.follow_log:
    summary: Follow this daemon's own log; Ctrl-C ends it
    class: read
    executor: exec
    argv: [tail, -n, "3", -f, %s]
`

const devGrants = `agents:
  you:
    users: [%q]
    allow: [{verb: host.uptime}, {verb: host.disk}, {verb: host.processes}, {verb: dev.follow_log}]
    delegate:
      to: [you-outside]
      verbs: [host.uptime, host.disk, host.processes, dev.follow_log]
`

func (d *dev) writeFiles() error {
	recipient, err := handle.NewRecipientIdentity(rand.Reader)
	if err != nil {
		return err
	}
	verbs, _, _ := strings.Cut(string(catalog.Starter), "\n#  ssh.")
	files := []starterFile{
		{"verbs.yaml", []byte(verbs + "\n" + fmt.Sprintf(devVerbs, d.path("audit.log"))), 0o644},
		{"grants.yaml", fmt.Appendf(nil, devGrants, d.user), 0o644},
		{"recipients.yaml", fmt.Appendf(nil, "recipients:\n  you-outside: {key: %s}\n", recipient.Public().Text()), 0o644},
		{"recipient.key", []byte(recipient.Text() + "\n"), 0o600},
	}
	for _, f := range files {
		if err := writeStarter(d.path(f.name), f); err != nil {
			return term.Errorf(term.Config, "%w", err)
		}
	}
	return daemon.NewIdentityFile(d.path("identity.key"), rand.Reader)
}

// open opens a session on every sample verb and says how to use it.
func (d *dev) open(ctx context.Context) error {
	opened, err := control.Dial(d.path("openscope.sock")).OpenShare(ctx, control.OpenRequest{
		Agent: "you", To: "you-outside", Specs: []string{"host.uptime", "host.disk", "host.processes", "dev.follow_log"},
	})
	if err != nil {
		return err
	}
	line := struct {
		ID      string `json:"id"`
		Socket  string `json:"socket"`
		Client  string `json:"client"`
		Expires string `json:"expires"`
	}{
		opened.ID, d.path("openscope.sock"),
		fmt.Sprintf("openscope-reflect-client --identity %s --known-daemons %s --fingerprint %q --passport %s",
			d.path("recipient.key"), d.path("known_daemons"), strings.Join(opened.Words, " "), string(opened.Handle)),
		opened.Expires.UTC().Format(time.RFC3339),
	}
	return d.env.Print(line, func(w io.Writer) {
		fmt.Fprintf(w, "A relay at %s, a daemon, and session %s until %s, all in this process.\n", d.relay.Address, opened.ID, clock(opened.Expires))
		fmt.Fprintf(w, "\nThe recipient, in another terminal:\n\n  %s\n", line.Client)
		fmt.Fprintf(w, "\nYou, in a third:\n\n  export OPENSCOPE_SOCKET=%s\n  openscope share watch %s\n  openscope audit tail -f\n  openscope share revoke %s\n", line.Socket, opened.ID, opened.ID)
		fmt.Fprintf(w, "\nCtrl-C ends it all and leaves nothing behind.\n")
	})
}
