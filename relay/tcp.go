package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"openscope/wire/tunnel"
)

// Connections over TCP meet the same door, the same first message within the
// same time, and the same limits. TCP has proved the address.

const (
	// acceptPause is how long nothing is accepted where the system has no
	// descriptor left: others' connections end meanwhile.
	acceptPause = 100 * time.Millisecond
	// A peer that has gone without a word is found out as over QUIC, where
	// connections without a packet end after 90 s.
	tcpIdle, tcpProbe, tcpProbes = 45 * time.Second, 15 * time.Second, 3
	// tcpUnacked is how long what was sent may stay unacknowledged.
	tcpUnacked = 90 * time.Second
	// tcpBuffer bounds what the kernel holds of one connection in each direction:
	// a window of ours beyond our own.
	tcpBuffer = 256 << 10
)

func (r *Relay) acceptTCP(ctx context.Context) error {
	for {
		conn, err := r.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting: %w", err)
		case err != nil:
			r.logger.Warn("not accepting", "error", err)
			_ = pause(ctx, acceptPause) // the next Accept says whether it is over
			continue
		}
		v, err := r.door.enter(conn.RemoteAddr())
		if err != nil {
			r.counters.crowd.Add(1)
			hangUp(conn)
			continue
		}
		r.children.Go(func() {
			defer v.leave()
			r.serveTCP(ctx, conn, v)
		})
	}
}

// pause waits, or says why the context has ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hangUp costs the one who is refused a reset, and us nothing that stays.
func hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (r *Relay) serveTCP(ctx context.Context, raw net.Conn, v *visit) {
	if tcp, ok := raw.(*net.TCPConn); ok {
		if err := tune(tcp); err != nil {
			r.logger.Debug("connection ended", "error", err)
			hangUp(raw)
			return
		}
	}
	conn, err := tunnel.OverTCP(context.WithValue(ctx, visitKey{}, v), raw, r.tcpTLS())
	if err != nil {
		r.logger.Debug("connection ended", "error", err)
		return
	}
	v.done()
	r.counters.accepted.Add(1)
	r.counters.acceptedTCP.Add(1)
	r.serve(ctx, conn)
}

// challengeProtocol is what an authority's question is asked in; OverTCP takes
// it for another protocol, and hangs up behind the handshake, which is all there
// is to it.
const challengeProtocol = "acme-tls/1"

// tcpTLS is the TLS of every rung, and of an authority's question. Whoever asks
// it passes the same door, and gets a certificate only while one is expected.
func (r *Relay) tcpTLS() *tls.Config {
	cfg := r.serverTLS()
	if r.cfg.Challenge == nil {
		return cfg
	}
	cfg.GetConfigForClient = func(who *tls.ClientHelloInfo) (*tls.Config, error) {
		if _, err := awaitTurn(who); err != nil || !slices.Equal(who.SupportedProtos, []string{challengeProtocol}) {
			return nil, err
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{challengeProtocol},
			GetCertificate: r.cfg.Challenge, SessionTicketsDisabled: true,
		}, nil
	}
	return cfg
}

// tune bounds how long and how much the kernel holds for a peer.
func tune(conn *net.TCPConn) error {
	return errors.Join(
		conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: tcpIdle, Interval: tcpProbe, Count: tcpProbes}),
		conn.SetReadBuffer(tcpBuffer), conn.SetWriteBuffer(tcpBuffer), setUserTimeout(conn, tcpUnacked),
	)
}
