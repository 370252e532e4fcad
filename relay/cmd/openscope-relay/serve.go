package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/peterbourgon/ff/v3"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/term"
)

// serveFlags are the flags of serve; a file given with --config has the same
// names, one `name value` on a line.
type serveFlags struct {
	config, listen, cert, key, state, public string
	selfSigned, verbose                      bool
}

func serveCommand(listen string) *term.Command {
	f := &serveFlags{listen: ":4433"}
	if listen != "" {
		f.listen = listen
	}
	return &term.Command{
		Name: "serve", Short: "run the relay",
		Long: `With --self-signed it makes a certificate, keeps it in --state, and prints the
pin that daemons put into their configuration. Daemons need a deployment token:
see token new.`,
		Flags: f.define, Run: f.run,
		Options: []ff.Option{ff.WithConfigFileFlag("config"), ff.WithConfigFileParser(ff.PlainParser)},
	}
}

func (f *serveFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.config, "config", "", "a `FILE` with the other flags, one `name value` on a line")
	fs.StringVar(&f.listen, "listen", f.listen, "the UDP `ADDRESS` to listen on (OPENSCOPE_LISTEN)")
	fs.StringVar(&f.cert, "cert", "", "the certificate's PEM `FILE`")
	fs.StringVar(&f.key, "key", "", "the PEM `FILE` of its private key")
	fs.BoolVar(&f.selfSigned, "self-signed", false, "make a certificate, and keep it in --state")
	fs.StringVar(&f.state, "state", defaultState, "the `DIR` of the tokens and the self-signed certificate")
	fs.StringVar(&f.public, "public-address", "", "this node's own `HOST:PORT`, for handles")
	fs.BoolVar(&f.verbose, "verbose", false, "log every connection's end; never who or what")
}

func (f *serveFlags) run(ctx context.Context, env *term.Env, _ []string) error {
	certificate, err := f.certificate()
	if err != nil {
		return err
	}
	tokens, err := relay.OpenTokenFile(filepath.Join(f.state, tokensFile))
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	conn, err := net.ListenPacket("udp", f.listen)
	if err != nil {
		return term.Errorf(term.Config, "listening on %s: %w", f.listen, err)
	}
	r, err := relay.New(relay.Config{
		Certificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
		Conn:          conn,
		Tokens:        tokens,
		PublicAddress: f.public,
		Logger:        env.Logger(f.level()),
	})
	if err != nil {
		return errors.Join(term.Errorf(term.Config, "%w", err), conn.Close())
	}
	fmt.Fprintf(env.Stdout, "listening on %s\npin %s\n", conn.LocalAddr(), wire.PinOf(certificate.Leaf))
	if known, err := tokens.List(); err == nil && len(known) == 0 {
		fmt.Fprintf(env.Stderr, "no deployment token yet: run: %s token new NAME --state %s\n", program, f.state)
	}
	if err := r.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// certificate is the one of --cert and --key, or the self-signed one.
func (f *serveFlags) certificate() (tls.Certificate, error) {
	switch {
	case f.selfSigned && (f.cert != "" || f.key != ""):
		return tls.Certificate{}, term.Errorf(term.Usage, "--self-signed excludes --cert and --key")
	case f.selfSigned:
		certificate, _, err := relay.SelfSigned(f.state, rand.Reader, time.Now())
		if err != nil {
			return certificate, term.Errorf(term.Config, "%w", err)
		}
		return certificate, nil
	case f.cert == "" || f.key == "":
		return tls.Certificate{}, term.Errorf(term.Usage, "a certificate is needed: --self-signed, or --cert and --key").
			WithHint("run: " + program + " serve --self-signed")
	}
	certificate, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return certificate, term.Errorf(term.Config, "reading the certificate: %w", err)
	}
	return certificate, nil
}

func (f *serveFlags) level() slog.Level {
	if f.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
