package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/client"
	"openscope/relay"
	"openscope/wire/call"
)

// lossEvery is which datagram is lost, by chance, each way at the relay's socket:
// one in twenty.
const lossEvery = 20

// lossySocket is a relay's, on a bad network: between each end and the relay,
// and back, a datagram in twenty is lost. It shows the relay nothing but datagrams, so that
// no train of them is lost, or passes, as one.
type lossySocket struct {
	net.PacketConn
	seen, lost atomic.Int64
}

func (s *lossySocket) loses() bool {
	s.seen.Add(1)
	if rand.IntN(lossEvery) != 0 {
		return false
	}
	s.lost.Add(1)
	return true
}

func (s *lossySocket) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.loses() {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, to)
}

func (s *lossySocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(p)
		if err != nil || !s.loses() {
			return n, from, err
		}
	}
}

// SetReadBuffer and SetWriteBuffer are what quic-go looks for.
func (s *lossySocket) SetReadBuffer(n int) error {
	return s.PacketConn.(*net.UDPConn).SetReadBuffer(n)
}

func (s *lossySocket) SetWriteBuffer(n int) error {
	return s.PacketConn.(*net.UDPConn).SetWriteBuffer(n)
}

// lossCalls adds up what the calls of TestSixtyFourCallsPassABadNetwork were.
type lossCalls struct {
	mu    sync.Mutex
	whole int
	bytes int
	late  []time.Duration // beyond what the command itself takes
	cut   []string
}

// make makes one call, and holds it to what its command says.
func (c *lossCalls) make(t *testing.T, s *client.Session, name string, bulk bool) {
	verb, lines, pause := "test.steps", lossSteps, "1"
	want, _ := steps(name, lines)
	args := params("name", name, "lines", fmt.Sprint(lines), "pause", pause)
	if bulk {
		verb, lines = "test.bulk", 20_000
		want, args = numbersUpTo(lines), params("name", name, "lines", fmt.Sprint(lines))
	}
	var stdout bytes.Buffer
	began := time.Now()
	r, err := s.Call(t.Context(), verb, args, &stdout, io.Discard)
	took := time.Since(began)
	if !bulk {
		took -= time.Duration(lines) * time.Second
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += stdout.Len()
	if err != nil || !r.Complete {
		c.cut = append(c.cut, fmt.Sprintf("%s: %v, %v, %s", name, r.Cause, err, r.Reason))
		return
	}
	if r.Cause != call.Exited || stdout.String() != want {
		t.Errorf("%s is said to be complete: %v with %d bytes of %d", name, r.Cause, stdout.Len(), len(want))
	}
	c.whole++
	c.late = append(c.late, took)
}

// L2: 64 calls at once, of eight sessions, through a network that loses one
// datagram in twenty four times between the two ends. Each ends with its whole
// output and has run once.
func TestSixtyFourCallsPassABadNetwork(t *testing.T) {
	t.Parallel()
	var socket *lossySocket
	w := newWorldWith(t, worldConfig{relay: func(cfg *relay.Config) {
		socket = &lossySocket{PacketConn: cfg.Conn}
		cfg.Conn = socket
	}})
	w.takesItsTime()
	var calls lossCalls
	var running sync.WaitGroup
	began := time.Now()
	for i := range 8 {
		_, h := w.open("30m", "test.steps", "test.bulk")
		s := w.returning(h, nil)
		for j := range 8 {
			running.Go(func() {
				for n := 0; n == 0 || time.Since(began) < lossTime; n++ {
					calls.make(t, s, fmt.Sprintf("l%d-%d-%d", i, j, n), (j+n)%2 == 1)
				}
			})
		}
	}
	running.Wait()
	for _, cut := range calls.cut {
		t.Errorf("cut: %s", cut)
	}
	slices.Sort(calls.late)
	if len(calls.late) == 0 {
		t.Fatal("no call was whole")
	}
	ran := ranOnce(t, w.read("ran"))
	if ran != calls.whole {
		t.Errorf("%d calls are said to be whole, and %d ran", calls.whole, ran)
	}
	seen, lost := socket.seen.Load(), socket.lost.Load()
	t.Logf("%v: %d calls whole, %d cut, %.1f MB; half %v late, 99 %% %v; %d datagrams, %.1f %% lost", time.Since(began).Round(time.Second), calls.whole, len(calls.cut),
		float64(calls.bytes)/1e6, calls.late[len(calls.late)/2].Round(time.Millisecond), calls.late[len(calls.late)*99/100].Round(time.Millisecond), seen, 100*float64(lost)/float64(seen))
	if lost == 0 {
		t.Error("nothing was lost: this shows nothing")
	}
}
