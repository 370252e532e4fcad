package relay_test

import (
	mathrand "math/rand/v2"
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// returnWithin is how soon after the relay's return every daemon must be
// registered again. The daemons here dial as the product's uplink does.
const returnWithin = 3 * time.Second

// The relay is killed (-9) and started again, at random times; its daemons come
// back, and it does not grow.
func TestDaemonsComeBackAfterEveryKill(t *testing.T) {
	const daemons = 8
	p := startProgram(t)
	binary := p.cmd.Path
	token := p.token("fleet")
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var slowest time.Duration
	var first, last int64
	for round := range restarts {
		began := time.Now()
		for range daemons {
			var d *tunnel.Daemon
			for d == nil {
				var err error
				if d, err = tunnel.DialDaemon(within(t, returnWithin), tunnel.DaemonConfig{Relay: wire.Relay{Address: p.address, Pin: &p.pin}, Prove: prove(token)}); err != nil {
					d = nil
				}
				if time.Since(began) > returnWithin {
					t.Fatalf("round %d: not back after %v: %v", round, returnWithin, err)
				}
			}
			s := newSession(t).standOn(t, d)
			client, daemon, _ := p.pair(s, d)
			bothWays(t, client, daemon)
			client.Reset()
			defer func() { _ = d.Close() }()
		}
		slowest = max(slowest, time.Since(began))
		if last = p.resident(); round == 0 {
			first = last
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) // a random moment
		p.killProgram()
		p.run(binary)
	}
	t.Logf("%d kills: all of %d daemons registered and paired again within %v; memory %d KiB, then %d KiB", restarts, daemons, slowest, first>>10, last>>10)
	if last > first*5/4 {
		t.Errorf("memory went from %d to %d", first, last)
	}
}
