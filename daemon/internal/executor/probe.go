package executor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ErrHostKey says that a machine has another host key than the pinned one.
var ErrHostKey = errors.New("its host key is not the pinned one")

// Probe says how far a target could be tried without running anything on it.
type Probe struct {
	Address string
	// Key says that the key was tried too, and let in.
	Key bool
}

// Targets are the names of the machines, sorted.
func (s *SSH) Targets() []string { return slices.Sorted(maps.Keys(s.targets)) }

// Targets are the names of the services, sorted.
func (h *HTTP) Targets() []string { return slices.Sorted(maps.Keys(h.targets)) }

// Probe connects to a target, holds it to its pinned host key, and logs in where
// the key is not each issuer's own. It runs nothing.
func (s *SSH) Probe(ctx context.Context, name string) (Probe, error) {
	t, ok := s.targets[name]
	if !ok {
		return Probe{}, refuse("no ssh target %q", name)
	}
	p := Probe{Address: t.address}
	var auth []ssh.AuthMethod
	if !strings.Contains(t.User+t.KeyFile, issuerMark) {
		signer, err := readKey(t.KeyFile, uint32(os.Geteuid()))
		if err != nil {
			return p, err
		}
		auth, p.Key = []ssh.AuthMethod{ssh.PublicKeys(signer)}, true
	}
	pinned := false
	client, err := s.handshake(ctx, t, auth, func(host string, remote net.Addr, key ssh.PublicKey) error {
		if err := ssh.FixedHostKey(t.hostKey)(host, remote, key); err != nil {
			return ErrHostKey
		}
		pinned = true
		return nil
	})
	closeClient(client)
	if err != nil && pinned && !p.Key {
		return p, nil // it was who it is said to be, and let nobody in without a key
	}
	return p, err
}

// Probe connects to a service and authenticates it. It asks for nothing.
func (h *HTTP) Probe(ctx context.Context, name string) (Probe, error) {
	t, ok := h.targets[name]
	if !ok {
		return Probe{}, refuse("no http target %q", name)
	}
	port := t.base.Port()
	if port == "" {
		port = t.base.Scheme
	}
	p := Probe{Address: net.JoinHostPort(t.base.Hostname(), port)}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := h.dial(ctx, "tcp", p.Address)
	if err != nil {
		return p, err
	}
	defer conn.Close()
	if t.base.Scheme == "http" {
		return p, nil
	}
	secured := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.roots, ServerName: t.base.Hostname()})
	if err := secured.HandshakeContext(ctx); err != nil {
		return p, fmt.Errorf("its certificate: %w", err)
	}
	return p, nil
}

// Contained is nil where every job gets a control group of its own, and else why
// not.
func (e *Exec) Contained() error { return e.why }
