package daemon

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"openscope/client"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	half "openscope/daemon/internal/network"
	"openscope/daemon/internal/seam"
	"openscope/relay"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// weather is what a network does to its packets.
type weather struct {
	loss, twice   float64       // of the packets
	delay, jitter time.Duration // jitter puts packets out of order
	mtu           int
	bits          int // a second and direction; zero is no bound
}

// badNetwork carries packets between sockets, in the bubble's time.
type badNetwork struct {
	mu     sync.Mutex
	random *rand.Rand
	nodes  map[string]simnet.PacketReceiver
	free   map[string]time.Time // when the way to a host is free again
	cut    map[string]bool      // hosts without a network
	weather
	ports uint16
}

func (n *badNetwork) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr.String()] = r
}

// longestQueue is what a narrow way holds before it drops.
const longestQueue = 2 * time.Second

func (n *badNetwork) SendPacket(p simnet.Packet) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, to := host(p.From), host(p.To)
	if n.cut[from] || n.cut[to] || len(p.Data) > n.mtu || n.random.Float64() < n.loss {
		return nil
	}
	copies := 1
	if n.random.Float64() < n.twice {
		copies = 2
	}
	for range copies {
		delay := n.delay
		if n.jitter > 0 {
			delay += time.Duration(n.random.Int64N(int64(n.jitter)))
		}
		if n.bits > 0 {
			way, now := from+to, time.Now()
			if n.free[way].Before(now) {
				n.free[way] = now
			}
			if n.free[way].Sub(now) > longestQueue {
				continue
			}
			n.free[way] = n.free[way].Add(time.Duration(len(p.Data)) * 8 * time.Second / time.Duration(n.bits))
			delay += n.free[way].Sub(now)
		}
		time.AfterFunc(delay, func() { n.receive(p) })
	}
	return nil
}

func (n *badNetwork) receive(p simnet.Packet) {
	n.mu.Lock()
	r := n.nodes[p.To.String()]
	n.mu.Unlock()
	if r != nil {
		r.RecvPacket(p)
	}
}

// set takes a host's network away, or gives it back.
func (n *badNetwork) set(host string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[host] = cut
}

func host(a net.Addr) string { h, _, _ := net.SplitHostPort(a.String()); return h }

// listen opens a socket of the host on a new port.
func (n *badNetwork) listen(host string) func() (net.PacketConn, error) {
	return func() (net.PacketConn, error) {
		n.mu.Lock()
		n.ports++
		port := 1024 + int(n.ports)
		n.mu.Unlock()
		return simnet.NewSimConn(&net.UDPAddr{IP: net.ParseIP(host), Port: port}, n), nil
	}
}

const (
	relayHost  = "10.0.0.1"
	daemonHost = "10.0.0.2"
	clientHost = "10.0.0.3"
)

// scribe is an executor whose runs take their time: each appends its name to a
// file, and writes what its name says.
type scribe struct {
	file *os.File
	fast time.Duration // between two pieces, at most
}

// said is what the run of this name writes on a stream.
func said(name string, s call.Stream) []byte {
	seed := sha256.Sum256([]byte(fmt.Sprint(name, s)))
	random := rand.New(rand.NewChaCha8(seed))
	text := make([]byte, random.IntN(sizeOf(name)+1))
	for i := range text {
		text[i] = "0123456789abcdef\n"[random.IntN(17)]
	}
	return text
}

// sizeOf is how much a run of this name may write: the name says so.
func sizeOf(name string) int {
	var n, size int
	if _, err := fmt.Sscanf(name, "c%d-%d", &n, &size); err != nil {
		return 0
	}
	return size
}

func (s *scribe) Execute(ctx context.Context, job executor.Job) executor.Outcome {
	name := strings.Split(filepath.Base(job.Argv[1]), ".")[1]
	if _, err := s.file.WriteString(name + "\n"); err != nil {
		return executor.Outcome{Status: executor.NoStatus, Err: err}
	}
	out, errs := said(name, call.Stdout), said(name, call.Stderr)
	random := rand.New(rand.NewPCG(uint64(len(out)), uint64(len(errs))))
	for len(out)+len(errs) > 0 {
		for _, stream := range []struct {
			to   io.Writer
			rest *[]byte
		}{{job.Stdout, &out}, {job.Stderr, &errs}} {
			n := min(len(*stream.rest), 1+random.IntN(8<<10))
			if n == 0 {
				continue
			}
			if _, err := stream.to.Write((*stream.rest)[:n]); err != nil {
				return executor.Outcome{Status: executor.NoStatus, Err: err}
			}
			*stream.rest = (*stream.rest)[n:]
		}
		select {
		case <-time.After(time.Duration(random.Int64N(int64(s.fast) + 1))):
		case <-ctx.Done():
			return executor.Outcome{Status: executor.NoStatus}
		}
	}
	return executor.Outcome{}
}

func (s *scribe) Describe(executor.Job) string { return "" }

// bubble is a daemon, a relay and a client on a bad network, all of them real
// but for the network, the clock and what a verb runs.
type bubble struct {
	*hostileHalf
	net     *badNetwork
	scribe  *scribe
	tokens  *relay.TokenFile
	cert    tls.Certificate
	address wire.Relay
	endNode func()
	lost    time.Time     // since when the client is without a connection
	away    time.Duration // the longest time that the client knows to have been without a connection
	running sync.WaitGroup
}

func newBubble(t *testing.T, seed uint64, w weather) *bubble {
	b := &bubble{hostileHalf: newHostileHalf(t), net: &badNetwork{
		random: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[string]simnet.PacketReceiver),
		free: make(map[string]time.Time), cut: make(map[string]bool), weather: w,
	}}
	b.core.clock = &bentClock{began: time.Now()}
	file, err := os.OpenFile(filepath.Join(b.dir, "ran"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	b.scribe = &scribe{file: file, fast: 300 * time.Millisecond}
	t.Cleanup(func() { file.Close() })
	r := *b.rules.Load()
	r.executors = map[string]executor.Executor{"exec": b.scribe}
	b.rules.Store(&r)

	var token wire.Token
	var pin wire.Pin
	tokens, err := relay.OpenTokenFile(filepath.Join(b.dir, "tokens"))
	if err == nil {
		token, err = tokens.Add("bubble", crand.Reader)
	}
	if err == nil {
		b.cert, pin, err = relay.SelfSigned(filepath.Join(b.dir, "relay"), crand.Reader, time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	b.tokens, b.address = tokens, wire.Relay{Address: relayHost + ":4433", Pin: &pin}
	b.startNode()
	b.startDaemon(token)
	return b
}

// startNode starts the relay, again after endNode.
func (b *bubble) startNode() {
	conn := simnet.NewSimConn(&net.UDPAddr{IP: net.ParseIP(relayHost), Port: 4433}, b.net)
	r, err := relay.New(relay.Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &b.cert, nil },
		Conn:        conn, Tokens: b.tokens,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			b.t.Errorf("the relay: %v", err)
		}
	}()
	b.endNode = func() { cancel(); <-done }
}

func (b *bubble) startDaemon(token wire.Token) {
	ways := tunnel.Ways{Only: []tunnel.Rung{tunnel.QUIC}, Listen: b.net.listen(daemonHost)}
	build := func(core seam.Authority, s seam.Setup, logger *slog.Logger, changed func([]seam.RelayState)) (seam.Half, error) {
		return half.New(core, half.Config{Relays: s.Relays, Ways: &ways, Rand: crand.Reader, Logger: logger, Changed: changed}), nil
	}
	net := seam.NewSupervisor(seam.Config{
		Core: b.core, Setup: seam.Setup{Relays: []wire.Relay{b.address}}, Logger: b.logger,
		Start: func(context.Context) (seam.Running, error) {
			ours, theirs := net.Pipe() // a pipe that the bubble's clock knows
			ended := make(chan error, 1)
			go func() { ended <- seam.Serve(context.Background(), theirs, seam.Confinement{}, build) }()
			return seam.Running{Conn: ours, Stop: func() error { _ = ours.Close(); return <-ended }}, nil
		},
	})
	b.cfg.Token = token
	b.network = net
	ctx, cancel := context.WithCancelCause(context.Background())
	b.running.Go(func() { net.Run(ctx) })
	b.running.Go(func() { b.watch(ctx) })
	b.t.Cleanup(func() {
		b.shutdown()
		cancel(nil)
		b.running.Wait()
		b.endNode()
	})
}

// connect is the recipient's client, coming back whenever it is lost.
func (b *bubble) connect() *client.Session {
	var opened control.OpenResult
	var err error
	for range 60 { // as the issuer would, whom a bad network keeps from the relay
		opened, err = b.OpenShare(b.ctx, control.OpenRequest{Agent: "you", To: "vendor-b", Specs: []string{"test.mark"}, TTL: 30 * time.Minute})
		if err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	h, err := handle.Parse(string(opened.Handle))
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := client.Config{
		Handle: h, Identity: b.owner, StateDir: b.dir, Rand: crand.Reader, Roots: x509.NewCertPool(), Redial: true,
		Join: func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
			cfg.Ways = tunnel.Ways{Only: []tunnel.Rung{tunnel.QUIC}, Listen: b.net.listen(clientHost)}
			return tunnel.Join(ctx, cfg)
		},
	}
	cfg.OnConnection = func(lost error) { // from one goroutine, which Close awaits
		if lost != nil {
			b.lost = time.Now()
		} else {
			b.away, b.lost = max(b.away, time.Since(b.lost)), time.Time{}
		}
	}
	for range 20 { // the first time it is the person who tries again
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		s, err := client.Connect(ctx, cfg)
		cancel()
		if err == nil {
			return s
		}
		b.t.Logf("connecting: %v", err)
	}
	b.t.Fatal("the client does not get through")
	return nil
}

// ran counts the runs of each name.
func (b *bubble) ran() map[string]int {
	text, err := os.ReadFile(filepath.Join(b.dir, "ran"))
	if err != nil {
		b.t.Fatal(err)
	}
	counts := make(map[string]int)
	for name := range strings.FieldsSeq(string(text)) {
		counts[name]++
	}
	return counts
}

// told is what a client was told of one call.
type told struct {
	name           string
	r              client.Result
	err            error
	stdout, stderr bytes.Buffer
	took           time.Duration
}

func (c *told) complete() bool { return c.err == nil && c.r.Cause == call.Exited && c.r.Complete }

// leastAway is what a client knows of an absence of a minute: not the silence
// before it, and not its own first attempt to come back.
const leastAway = detachedFor - 15*time.Second - 15*time.Second - 5*time.Second

// judge holds what was told of each call against what ran: once at most; whole
// where it is said to be whole; and never where it is said that it did not.
func (b *bubble) judge(all []*told) (finished, cut, nothing int) {
	b.t.Helper()
	ran := b.ran()
	if !b.lost.IsZero() {
		b.away = max(b.away, time.Since(b.lost))
	}
	for _, c := range all {
		n := ran[c.name]
		whole := bytes.Equal(c.stdout.Bytes(), said(c.name, call.Stdout)) && bytes.Equal(c.stderr.Bytes(), said(c.name, call.Stderr))
		switch {
		case n > 1:
			b.t.Errorf("%s ran %d times", c.name, n)
		case c.complete():
			finished++
			if n != 1 || !whole {
				b.t.Errorf("%s is said to be complete, ran %d times, and is whole: %v", c.name, n, whole)
			}
		case c.err != nil || c.r.Cause == call.Unseen || c.r.Cause == call.Stale || c.r.Cause == call.Denied || c.r.Cause == call.Limit:
			nothing++
			if n != 0 {
				b.t.Errorf("%s is said not to have run (%v, %v), and ran", c.name, c.r.Cause, c.err)
			}
		case c.r.Cause == call.Cut || c.r.Cause == call.Exited:
			cut++ // or what was kept of its output was so for a minute
			if b.away < leastAway {
				b.t.Errorf("%s: %v, complete %v, and no connection was away for more than %v: %s", c.name, c.r.Cause, c.r.Complete, b.away, c.r.Reason)
			}
		default:
			b.t.Errorf("%s: %v, complete %v: %s", c.name, c.r.Cause, c.r.Complete, c.r.Reason)
		}
		if !bytes.HasPrefix(said(c.name, call.Stdout), c.stdout.Bytes()) || !bytes.HasPrefix(said(c.name, call.Stderr), c.stderr.Bytes()) {
			b.t.Errorf("%s: its output is not what it wrote, from the beginning", c.name)
		}
	}
	return finished, cut, nothing
}

// storm is a weather and what happens under it, drawn from a seed.
func storm(random *rand.Rand) (w weather, size int) {
	w = weather{
		loss:  []float64{0, 0.01, 0.05, 0.20}[random.IntN(4)],
		twice: random.Float64() * 0.05,
		delay: time.Duration(random.Int64N(int64(500 * time.Millisecond))),
		mtu:   1200 + random.IntN(301),
	}
	w.jitter = time.Duration(random.Int64N(int64(w.delay)/2 + 1))
	size = 200 << 10
	if random.IntN(5) == 0 {
		w.bits, w.loss, size = 64_000, min(w.loss, 0.01), 8<<10
	}
	return w, size
}

// trouble takes the network or the relay away for a while, and brings it back.
func (b *bubble) trouble(random *rand.Rand) {
	time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
	away := time.Duration(random.Int64N(int64(40 * time.Second)))
	switch random.IntN(4) {
	case 0:
		b.net.set(clientHost, true)
		time.Sleep(away)
		b.net.set(clientHost, false)
	case 1:
		b.net.set(daemonHost, true)
		time.Sleep(away)
		b.net.set(daemonHost, false)
	case 2:
		b.endNode()
		time.Sleep(away / 4)
		b.startNode()
	default: // only the weather
	}
}

// N1: whatever the network does, a call finishes with all of its output or is
// said to be cut, and none runs twice.
func TestCallsFinishOrAreCutWhateverTheNetworkDoes(t *testing.T) {
	var finished, cut, nothing int
	var slowest time.Duration
	for seed := range uint64(stormSeeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 2))
				w, size := storm(random)
				b := newBubble(t, seed, w)
				s := b.connect()
				var calls sync.WaitGroup
				all := make([]*told, 3+random.IntN(5))
				for i := range all {
					c := &told{name: fmt.Sprintf("c%d-%d", i, size>>random.IntN(6))}
					all[i] = c
					wait := time.Duration(random.Int64N(int64(30 * time.Second)))
					calls.Go(func() {
						time.Sleep(wait)
						began := time.Now()
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
						defer cancel()
						c.r, c.err = s.Call(ctx, "test.mark", []call.Param{named(c.name)}, &c.stdout, &c.stderr)
						c.took = time.Since(began)
					})
				}
				b.trouble(random)
				calls.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				f, k, n := b.judge(all)
				finished, cut, nothing = finished+f, cut+k, nothing+n
				longest := slices.MaxFunc(all, func(a, b *told) int { return cmp.Compare(a.took, b.took) })
				slowest = max(slowest, longest.took)
			})
		})
	}
	t.Logf("%d seeds: %d calls finished whole, %d were cut or came in part, %d did not run; the slowest took %v", stormSeeds, finished, cut, nothing, slowest)
	if total := finished + cut + nothing; finished < total*3/4 {
		t.Errorf("of %d calls %d finished", total, finished)
	}
}
