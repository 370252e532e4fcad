package relay_test

import (
	"io"
	"testing"
	"time"

	"openscope/wire/tunnel"
)

// BenchmarkRelayCost is what a relay, as a process of its own, computes for a
// pairing (handshake of the client, join and preface) and for each byte that it
// forwards: what README.md's capacity table is made of.
func BenchmarkRelayCost(b *testing.B) {
	b.Run("pairing", func(b *testing.B) {
		p, d, s := costly(b)
		before := p.busy()
		for b.Loop() {
			client, daemon, _ := p.pair(s, d)
			client.Reset()
			daemon.Reset()
		}
		b.ReportMetric(float64((p.busy()-before)/time.Microsecond)/float64(b.N), "relay-µs/op")
	})
	b.Run("forward", func(b *testing.B) {
		p, d, s := costly(b)
		client, daemon, _ := p.pair(s, d)
		go func() { _, _ = io.Copy(io.Discard, daemon) }()
		piece := make([]byte, 64<<10)
		b.SetBytes(int64(len(piece)))
		before := p.busy()
		for b.Loop() {
			if _, err := client.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		used := (p.busy() - before).Seconds()
		b.ReportMetric(float64(b.N)*float64(len(piece))/1e6/used, "MB/relay-core-s")
	})
}

func costly(b *testing.B) (*program, *tunnel.Daemon, session) {
	p := startProgram(b, "--handshake-rate-per-address", "100000", "--handshake-rate", "100000", "--token-joins", "100000")
	d := p.daemon(p.token("cost"))
	return p, d, newSession(b).standOn(b, d)
}
