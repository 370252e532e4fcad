package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"openscope/relay"
	"openscope/relay/fleet"
	"openscope/wire"
	"openscope/wire/term"
)

// tokenFlags say where the tokens are: a file, or a fleet's bucket.
type tokenFlags struct {
	state, source, credentials, ca string
}

func (f *tokenFlags) define(fs *flag.FlagSet) {
	if f.state == "" {
		f.state = defaultState
	}
	fs.StringVar(&f.state, "state", f.state, "the `DIR` of the tokens and the self-signed certificate")
	fs.StringVar(&f.source, "tokens", "", "`WHERE` the tokens are: a FILE (tokens in --state), or nats://HOST[:PORT][,…] for a fleet; @FILE reads this")
	fs.StringVar(&f.credentials, "tokens-credentials", "", "the NATS credentials `FILE`")
	fs.StringVar(&f.ca, "tokens-ca", "", "the PEM `FILE` that NATS is authenticated by")
}

// tokenStore is the tokens as the operator's commands change them.
type tokenStore interface {
	relay.Tokens
	List() ([]relay.TokenEntry, error)
	AddLimited(relay.TokenEntry, io.Reader) (wire.Token, error)
	Revoke(name string) error
	// Ready says why nobody is taken yet, or nil.
	Ready() error
	Close() error
}

// fileStore is a file, which is always ready.
type fileStore struct{ *relay.TokenFile }

func (f fileStore) Ready() error {
	_, err := f.List()
	return err
}

func (fileStore) Close() error { return nil }

// open opens the tokens; Close of what it returns ends its connection.
func (f *tokenFlags) open(ctx context.Context, logger *slog.Logger) (tokenStore, error) {
	source := f.source
	if name, ok := strings.CutPrefix(source, "@"); ok {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, term.Errorf(term.Config, "reading --tokens: %w", err)
		}
		source = strings.TrimSpace(string(text))
	}
	if strings.HasPrefix(source, "nats://") || strings.HasPrefix(source, "tls://") {
		bucket, err := fleet.Open(ctx, fleet.Config{Servers: source, Credentials: f.credentials, CA: f.ca, Logger: logger})
		if err != nil {
			return nil, term.Errorf(term.Config, "%w", err)
		}
		return bucket, nil
	}
	if strings.Contains(source, "://") {
		return nil, term.Errorf(term.Usage, "--tokens is a file, nats://… or tls://…")
	}
	if f.credentials != "" || f.ca != "" {
		return nil, term.Errorf(term.Usage, "--tokens-credentials and --tokens-ca are for --tokens nats://…")
	}
	if source == "" {
		source = filepath.Join(f.state, tokensFile)
	}
	file, err := relay.OpenTokenFile(source)
	if err != nil {
		return nil, term.Errorf(term.Config, "%w", err)
	}
	return fileStore{file}, nil
}

func (f *tokenFlags) hint() string {
	if f.source != "" {
		return fmt.Sprintf("%s token new NAME --tokens …", program)
	}
	return fmt.Sprintf("%s token new NAME --state %s", program, f.state)
}
