package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/tunnel"
)

// sessionCount is how many sessions stand on our relay: as many as the idle ones,
// and one for each stream beside them. They are spread over origins, since a
// daemon has at most [tunnel.MaxDaemonStreams] streams.
const (
	sessionCount = 1020
	origins      = 2
)

// seed is 32 bytes that both ends of the benchmark know. Nothing here is a
// secret: what is measured is what secrets cost.
func seed(label string, i int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "openscope perf %s %d", label, i))
}

func registerKey(i int) ed25519.PrivateKey {
	s := seed("register", i)
	return ed25519.NewKeyFromSeed(s[:])
}

func sessionKeys(i int) *channel.Keys { return channel.NewKeys(wire.SecretOf(seed("session", i))) }

func ridOf(i int) wire.RendezvousID {
	return wire.NewRendezvousID(registerKey(i).Public().(ed25519.PublicKey), sessionKeys(i).JoinKey().Public().(ed25519.PublicKey))
}

// register makes every origin's part of the sessions known.
func register(ctx context.Context, d *tunnel.Daemon, part int) error {
	for i := part; i < sessionCount; i += origins {
		key := registerKey(i)
		r := wire.SignRegister(key, d.Exporter(), wire.Register{
			RID: ridOf(i), RegisterKey: key.Public().(ed25519.PublicKey), JoinKey: sessionKeys(i).JoinKey().Public().(ed25519.PublicKey), Lifetime: 30 * time.Minute,
		})
		if err := d.Register(ctx, r); err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
	}
	return nil
}
