package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openscope/daemon/internal/seam"
	"openscope/wire/tunnel"
)

// Try says hello to one relay by one rung, as the daemon does, and leaves again.
func (n *Half) Try(ctx context.Context, relay, number int) (seam.Tried, error) {
	if relay < 0 || relay >= len(n.uplinks) || number < 0 || number >= len(tunnel.Rungs) {
		return seam.Tried{}, fmt.Errorf("trying rung %d to relay %d", number, relay)
	}
	rung := tunnel.Rungs[number]
	ways := n.ways
	if rung == tunnel.Proxy && ways.Proxies.For(n.uplinks[relay].relay.Address) == nil {
		return seam.Tried{Kind: seam.TriedNoProxy}, nil
	}
	ways.Only = []tunnel.Rung{rung}
	began := time.Now()
	t, err := n.uplinks[relay].dial(ctx, ways)
	tried := seam.Tried{Took: time.Since(began)}
	if err == nil {
		_ = t.Close()
		return tried, nil
	}
	tried.Kind, tried.Problem = seam.TriedFailed, err.Error()
	if errors.Is(err, tunnel.ErrTokenRefused) {
		tried.Kind = seam.TriedTokenRefused
	}
	if i, ok := errors.AsType[*tunnel.ImpostorError](err); ok {
		tried.Kind, tried.Host = seam.TriedImpostor, i.Host()
	}
	return tried, nil
}
