package bench

import (
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/client"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

const (
	// msg1Rate is how many handshakes that cannot succeed a relay begins each second.
	msg1Rate = 10_000
	// floodStarters open streams at the same time.
	floodStarters = 32
	// honestShakes is the longest that one handshake in a hundred may take meanwhile.
	honestShakes = time.Second
	// honestPatience is how long a client tries.
	honestPatience = 20 * time.Second
)

// L3: a relay of the attacker's begins handshakes with the daemon that cannot
// succeed, as fast as it is let; whoever has the handle still gets in.
func TestAFloodOfHandshakesKeepsNobodyOut(t *testing.T) {
	leavesNothing(t)
	s, r := newHostileSite(t)
	s.open("10m", "test.echo")
	defer s.must("openscope", "share", "revoke", s.id)
	h, err := handle.Parse(s.handle)
	if err != nil {
		t.Fatal(err)
	}
	computed, began := s.daemon.computed(t), time.Now()
	stop := sync.OnceValue(r.floodHandshakes(h))
	defer stop()
	var took []time.Duration
	tried := 0
	for i := 0; i == 0 || time.Since(began) < msg1Flood; i++ {
		d, tries := s.shakeHands(r, h)
		took, tried = append(took, d), tried+tries
	}
	count := stop()
	elapsed := time.Since(began)
	cpu := float64(s.daemon.computed(t)-computed) / float64(elapsed)
	slices.Sort(took)
	p99 := took[(len(took)*99-1)/100]
	t.Logf("%.0f bad msg1 a second for %v; %d honest handshakes in %d tries, half within %v, 99 %% within %v; the daemon took %.0f %% of a core",
		float64(count)/elapsed.Seconds(), elapsed.Round(time.Second), len(took), tried, took[len(took)/2], p99, 100*cpu)
	if count == 0 {
		t.Error("nothing was flooded")
	}
	if fullFlood && (p99 > honestShakes || cpu > 1) {
		t.Errorf("p99 is %v, and the daemon took %.0f %% of a core", p99, 100*cpu)
	}
	s.honestCall(r, "after")
}

// shakeHands connects as an honest client does, which tries again when its leg
// was dropped, and says how long it took.
func (s *site) shakeHands(r *hostileRelay, h handle.Handle) (took time.Duration, tries int) {
	s.t.Helper()
	began := time.Now()
	try := func() error {
		c := r.circuit(h.RID)
		defer c.done()
		session, err := client.Connect(s.t.Context(), client.Config{Handle: h, Identity: s.identity(), StateDir: s.path("client"), Rand: rand.Reader, Join: c.join})
		if err == nil {
			_ = session.Close()
		}
		return err
	}
	err := try()
	for tries = 1; err != nil && time.Since(began) < honestPatience; tries++ {
		err = try()
	}
	if err != nil {
		s.t.Fatalf("an honest client, tried %d times: %v", tries, err)
	}
	return time.Since(began), tries
}

// floodHandshakes begins handshakes until stop, which says how many.
func (r *hostileRelay) floodHandshakes(h handle.Handle) (stop func() int64) {
	var count atomic.Int64
	var over atomic.Bool
	var running sync.WaitGroup
	began := time.Now()
	for range floodStarters {
		running.Go(func() {
			msg1 := make([]byte, channel.Msg1Size)
			_, _ = rand.Read(msg1)
			msg1[0], msg1[1] = 1, 1 // version and type
			for !over.Load() {
				i := count.Add(1)
				if ahead := time.Duration(i)*time.Second/msg1Rate - time.Since(began); ahead > 0 {
					time.Sleep(ahead)
				}
				far, err := r.leg(h.RID)
				if err != nil {
					continue
				}
				_ = far.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = far.Write(msg1)
				_, _ = far.Read(msg1[:1]) // until the daemon has had enough
				msg1[0] = 1
				discard(far)
			}
		})
	}
	return func() int64 {
		over.Store(true)
		running.Wait()
		return count.Load()
	}
}

// computed is how long the process has computed.
func (p *process) computed(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
