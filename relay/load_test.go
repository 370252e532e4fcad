package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// L6: what comes back to an address that has proved nothing is at most three
// times what it sent, however it begins.
func TestNobodyIsAmplified(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	for range 3 {
		amplified(t, n)
	}
}

// amplified sends a real client's first flight, from an address that then says
// nothing more, and counts what it is sent until the relay has given up.
func amplified(t *testing.T, n *node) {
	t.Helper()
	first := firstFlight(t)
	victim, err := net.Dial("udp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	sent, got := 0, 0
	for _, datagram := range first {
		k, err := victim.Write(datagram)
		if err != nil {
			t.Fatal(err)
		}
		sent += k
	}
	buf := make([]byte, 2048)
	for {
		if err := victim.SetReadDeadline(time.Now().Add(6 * time.Second)); err != nil { // the relay repeats itself for 5 s
			t.Fatal(err)
		}
		k, err := victim.Read(buf)
		if err != nil {
			break
		}
		got += k
	}
	if got == 0 {
		t.Fatal("nothing came back: this shows nothing")
	}
	t.Logf("%d bytes for %d: %.2f", got, sent, float64(got)/float64(sent))
	if got > 3*sent {
		t.Errorf("%d bytes were answered with %d", sent, got)
	}
}

// firstFlight is what a client sends before it has had any answer.
func firstFlight(t *testing.T) [][]byte {
	t.Helper()
	sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	go func() {
		if conn, err := quic.DialAddr(within(t, 100*time.Millisecond), sink.LocalAddr().String(), strangersTLS(wire.ALPN), &quic.Config{}); err == nil {
			_ = conn.CloseWithError(0, "")
		}
	}()
	var all [][]byte
	if err := sink.SetReadDeadline(time.Now().Add(150 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 2048)
		k, err := sink.Read(buf)
		if err != nil {
			break
		}
		all = append(all, buf[:k])
	}
	if len(all) == 0 {
		t.Fatal("no first flight was seen")
	}
	return all
}

// paced is what a paired session had while bytes were sent through it.
type paced struct {
	rate float64 // bytes per second that arrived
	p99  time.Duration
}

const (
	pace      = 10 << 20
	paceTick  = 2 * time.Millisecond
	pingEvery = 5 * time.Millisecond
)

// measurePaced sends at the pace on one leg and measures round trips on another
// of the same daemon.
func measurePaced(t *testing.T, n *node, s session, d *tunnel.Daemon, during time.Duration) paced {
	t.Helper()
	client, daemon, _ := n.pair(s, d)
	pinger, ponger, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	bothWays(t, pinger, ponger)
	var got atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			k, err := daemon.Read(buf)
			got.Add(int64(k))
			if err != nil {
				return
			}
		}
	})
	running.Go(func() { _, _ = io.Copy(ponger, ponger) })
	var trips []time.Duration
	stop := time.Now().Add(during)
	running.Go(func() {
		b := make([]byte, 32)
		for time.Now().Before(stop) {
			began := time.Now()
			if _, err := pinger.Write(b); err != nil {
				t.Error(err)
				return
			}
			if _, err := io.ReadFull(pinger, b); err != nil {
				t.Error(err)
				return
			}
			trips = append(trips, time.Since(began))
			time.Sleep(pingEvery)
		}
		_ = pinger.CloseWrite()
	})
	began, sent := time.Now(), 0
	piece := make([]byte, 64<<10)
	for time.Now().Before(stop) {
		for due := int(time.Since(began).Seconds() * pace); sent < due; {
			k, err := client.Write(piece[:min(len(piece), due-sent)])
			if err != nil {
				t.Error(err)
				break
			}
			sent += k
		}
		time.Sleep(paceTick)
	}
	result := paced{rate: float64(got.Load()) / time.Since(began).Seconds()}
	_ = client.CloseWrite()
	running.Wait()
	client.Reset()
	pinger.Reset()
	slices.Sort(trips)
	if len(trips) > 0 {
		result.p99 = trips[len(trips)*99/100]
	}
	return result
}

// Flood rows, and L4: joins of a real session with wrong proofs, from a thousand
// addresses. Each is measured against the quiet before it, on the relay's own
// program.
func TestAFloodLeavesAPairedSessionAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("loads both cores")
	}
	for _, kind := range []string{"datagrams", "hellos", "joins"} {
		t.Run(kind, func(t *testing.T) {
			p := startProgram(t)
			d := p.daemon(p.token("first"))
			s := newSession(t).standOn(t, d)
			quiet := measurePaced(t, p.node, s, d, floodTime)
			computed, began := p.busy(), time.Now()
			stop := startFlood(t, kind, p.address, s.rid)
			loud := measurePaced(t, p.node, s, d, floodTime)
			count, took := stop(), time.Since(began)
			t.Logf("%.0f/s: %.2f MB/s of %.2f, p99 %v of %v; relay busy %.0f %%", float64(count)/took.Seconds(),
				loud.rate/1e6, quiet.rate/1e6, loud.p99, quiet.p99, 100*float64(p.busy()-computed)/float64(took))
			if loud.rate < keeps*quiet.rate {
				t.Errorf("%.2f MB/s are left of %.2f", loud.rate/1e6, quiet.rate/1e6)
			}
			if fullLoad && loud.p99 > 2*quiet.p99 {
				t.Errorf("p99 is %v, it was %v", loud.p99, quiet.p99)
			}
		})
	}
}

// startFlood floods from a process of its own, with one core, until the
// returned stop, which says how many attempts were made. Where round trips are
// judged it has what nobody else wants of the processors (SCHED_IDLE): who floods a
// relay does so from elsewhere. Beside other tests it would have nothing.
func startFlood(t *testing.T, kind, address string, rid wire.RendezvousID) (stop func() uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	if fullLoad {
		cmd = exec.Command("chrt", "--idle", "0", os.Args[0])
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %x", floodVariable, kind, address, rid[:]), "GOMAXPROCS=1")
	until, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() uint64 {
		if err := errors.Join(until.Close(), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		count, err := strconv.ParseUint(strings.TrimSpace(out.String()), 10, 64)
		if err != nil || count == 0 {
			t.Fatalf("the flood says %q: %v", out.String(), err)
		}
		return count
	}
}
