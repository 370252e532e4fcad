package relay_test

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// However many do not read, they make the relay hold what the budget says, and
// whoever reads is left alone: also who reads slowly.
func TestWhoDoesNotReadCostsTheBudgetAtMost(t *testing.T) {
	onEveryRung(t, testWhoDoesNotReadCostsTheBudgetAtMost)
}

func testWhoDoesNotReadCostsTheBudgetAtMost(t *testing.T, by rungs) {
	const stalled, room = 20, 6
	n, d, first := standingBy(t, by, limited(relay.Limits{Buffered: room * (tunnel.Window + 32<<10)}))
	sessions := []session{newSession(t).standOn(t, d), newSession(t).standOn(t, d), newSession(t).standOn(t, d)}
	client, daemon, _ := n.pair(first, d)
	var ended atomic.Int64
	var writing sync.WaitGroup
	for i := range stalled {
		writer, _, _ := n.pair(sessions[i%len(sessions)], d)
		writing.Go(func() {
			for range 64 {
				if _, err := writer.Write(make([]byte, 64<<10)); err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						ended.Add(1)
					}
					return
				}
			}
		})
	}
	eventually(t, patience, "all but the budget's have ended", func() bool { return ended.Load() >= stalled-room })
	for range 20 {
		bothWays(t, client, daemon)
	}
	if shed := n.running.Stats().Shed; shed < stalled-room || ended.Load() > stalled {
		t.Errorf("%d were ended, %d noticed", shed, ended.Load())
	}
	n.cancel() // the rest
	writing.Wait()
}

// A process that holds too much refuses newcomers, and ends the legs that most
// was forwarded for, until it does not.
func TestTooMuchMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	var held atomic.Int64
	n, d, s := standing(t, func(c *relay.Config) { c.Memory, c.Limits.Memory = held.Load, 1000 })
	quiet, inside, _ := n.pair(s, d)
	bothWays(t, quiet, inside)
	heavy, reader, _ := n.pair(s, d)
	go func() { _, _ = heavy.Write(make([]byte, 128<<10)) }()
	if _, err := io.CopyN(io.Discard, reader, 128<<10); err != nil {
		t.Fatal(err)
	}
	held.Store(1001)
	if _, err := reader.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the leg that cost most goes on: %v", err)
	}
	held.Store(1000)
	eventually(t, patience, "newcomers are taken again", func() bool {
		l, err := tunnel.Join(within(t, patience), tunnel.ClientConfig{Relays: []wire.Relay{n.relay()}, RID: s.rid, Sign: func(exporter [32]byte) []byte {
			return wire.SignJoin(s.join, exporter, s.rid)
		}})
		if err != nil {
			return false
		}
		l.Reset()
		return true
	})
	if n.running.Stats().Shed == 0 {
		t.Error("it is not counted")
	}
	held.Store(1 << 40)
	lost(t, d, patience) // nobody else is left
	if _, err := n.from(t, "127.0.0.9"); err == nil {
		t.Error("a newcomer is taken while too much is held")
	}
}
