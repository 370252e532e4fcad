package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"openscope/wire"
)

// ClientConfig is what a client reaches a session with.
type ClientConfig struct {
	// Relays are tried in order, the next one when one cannot be reached.
	Relays []wire.Relay
	// Roots authenticate a relay without a pin; nil means the system's.
	Roots *x509.CertPool
	RID   wire.RendezvousID
	// Sign is the join key's proof for a connection with this exporter.
	Sign   func(exporter [32]byte) []byte
	Ways   Ways
	Logger *slog.Logger
}

// Join asks the first relay that answers for the other end of the session. The
// join is written and its answer not awaited: msg1 follows at once, and a
// refusal shows on the first Read. Resetting the leg frees the connection.
func Join(ctx context.Context, cfg ClientConfig) (wire.Leg, error) {
	var errs error
	for _, relay := range cfg.Relays {
		l, err := join(ctx, cfg, relay)
		if err == nil {
			return l, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, errs)
}

func join(ctx context.Context, cfg ClientConfig, relay wire.Relay) (wire.Leg, error) {
	l, err := dial(ctx, &cfg.Ways, relay, cfg.Roots, -1)
	if err != nil {
		return nil, err
	}
	stream, err := l.join(ctx, wire.Join{RID: cfg.RID, Signature: cfg.Sign(l.exporterKey())}.Append(nil))
	if err != nil {
		l.close()
		return nil, fmt.Errorf("joining at %s: %w", relay.Address, err)
	}
	return &leg{Stream: stream, release: l.close, by: l.rung()}, nil
}
