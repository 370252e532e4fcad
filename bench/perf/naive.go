package main

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// The first byte on a connection to the naive relay: who has come.
const (
	naiveOrigin = 'O'
	naiveClient = 'C'
)

// naiveConfig is QUIC as it comes, but for the number of streams.
func naiveConfig() *quic.Config {
	return &quic.Config{MaxIncomingStreams: 4096, MaxIdleTimeout: 5 * time.Minute}
}

// playNaive is the yardstick: what a relay over QUIC streams is when nobody has
// thought about it. One origin, and for each client a stream of the origin's
// connection and two io.Copy.
func playNaive(ctx context.Context) error {
	listener, err := quic.ListenAddr("127.0.0.1:0", benchTLS(), naiveConfig())
	if err != nil {
		return err
	}
	if err := say(answer{Where: listener.Addr().(*net.UDPAddr).String()}); err != nil {
		return err
	}
	var origin *quic.Conn
	var known sync.Mutex
	go func() {
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			go func() {
				s, err := conn.AcceptStream(ctx)
				if err != nil {
					return
				}
				var who [1]byte
				if _, err := io.ReadFull(s, who[:]); err != nil {
					return
				}
				if who[0] == naiveOrigin {
					known.Lock()
					origin = conn
					known.Unlock()
					_, _ = s.Write(who[:])
					return
				}
				known.Lock()
				to := origin
				known.Unlock()
				far, err := to.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				go copyNaively(far, s)
				copyNaively(s, far)
			}()
		}
	}()
	untilTold()
	return nil
}

func copyNaively(dst, src *quic.Stream) {
	if _, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, chunkSize)); err != nil {
		src.CancelRead(0)
		dst.CancelWrite(0)
		return
	}
	_ = dst.Close()
}
