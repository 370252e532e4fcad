package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// session is one open way to the origin, with a connection of its own, as a
// recipient has it.
type session interface {
	// bulk asks for bytes without an end; received counts them.
	bulk() error
	received() uint64
	// trip is 64 bytes there and back.
	trip() error
	reset()
}

// playClient stands for the recipient's side.
func playClient(_ context.Context, args []string) error {
	c := client{kind: args[0], where: args[1]}
	if c.kind == "records" {
		var err error
		if c.ends, err = newEnds(); err != nil {
			return err
		}
	}
	return orders(c.do)
}

type client struct {
	kind, where string
	ends        *ends
	idle        []session
}

func (c *client) do(o order) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+o.Duration)
	defer cancel()
	switch o.Do {
	case "bulk":
		return c.bulk(ctx, o.N, o.Duration)
	case "trips":
		return c.trips(ctx, o.N, nil)
	case "trips beside bulk":
		return c.beside(ctx, o.N)
	case "trips within bulk":
		return c.within(ctx, o.N)
	case "open":
		return c.opens(ctx, o.N)
	case "shake":
		return c.shake(ctx, o.Duration)
	case "hold":
		return c.hold(ctx, o.N)
	}
	return answer{}, fmt.Errorf("there is no order %q", o.Do)
}

func (c *client) dial(ctx context.Context, i int) (session, error) {
	switch c.kind {
	case "hop", "tuned", "naive":
		return c.dialQUIC(ctx)
	case "ssh":
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.where)
		if err != nil {
			return nil, err
		}
		return &bareSession{stream: tcpStream{conn.(*net.TCPConn)}}, nil
	}
	address, pin, _ := strings.Cut(c.where, " ")
	relay, err := parseRelay(address, pin)
	if err != nil {
		return nil, err
	}
	leg, err := tunnel.Join(ctx, tunnel.ClientConfig{Relays: []wire.Relay{relay}, RID: ridOf(i), Sign: func(exporter [32]byte) []byte {
		return wire.SignJoin(sessionKeys(i).JoinKey(), exporter, ridOf(i))
	}})
	if err != nil {
		return nil, err
	}
	if c.kind == "records" {
		return c.ends.client(ctx, i, leg)
	}
	return &bareSession{stream: leg}, nil
}

func (c *client) dialQUIC(ctx context.Context) (session, error) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	remote, err := net.ResolveUDPAddr("udp", c.where)
	if err != nil {
		return nil, err
	}
	config, packets := naiveConfig(), net.PacketConn(socket)
	if c.kind == "tuned" { // the best a hop can be
		config, packets = tunnel.Config(-1, 1), trains(socket)
	}
	transport := &quic.Transport{Conn: packets}
	conn, err := transport.Dial(ctx, remote, insecure(), config)
	if err != nil {
		return nil, errors.Join(err, transport.Close(), socket.Close())
	}
	s, err := conn.OpenStreamSync(ctx)
	if err == nil && c.kind == "naive" {
		_, err = s.Write([]byte{naiveClient})
	}
	return &bareSession{stream: quicStream{s, func() {
		_ = conn.CloseWithError(0, "")
		_ = transport.Close()
		_ = socket.Close()
	}}}, err
}

// bareSession is a session over a stream without records.
type bareSession struct {
	stream
	begun bool
	came  atomic.Uint64
}

func (s *bareSession) reset()           { s.Reset() }
func (s *bareSession) received() uint64 { return s.came.Load() }

func (s *bareSession) bulk() error {
	if _, err := s.Write([]byte{wantBytes}); err != nil {
		return err
	}
	go func() {
		chunk := make([]byte, chunkSize)
		for {
			n, err := s.Read(chunk)
			s.came.Add(uint64(n))
			if err != nil {
				return
			}
		}
	}()
	return nil
}

func (s *bareSession) trip() error {
	message := make([]byte, 0, 1+blockSize)
	if !s.begun {
		message, s.begun = append(message, wantEcho), true
	}
	if _, err := s.Write(append(message, make([]byte, blockSize)...)); err != nil {
		return err
	}
	_, err := io.ReadFull(s, make([]byte, blockSize))
	return err
}

// dialAll opens sessions from number first on.
func (c *client) dialAll(ctx context.Context, first, n int) ([]session, error) {
	sessions := make([]session, n)
	errs := make([]error, n)
	turns := make(chan struct{}, 8) // a stampede would measure the stampede
	var all sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			sessions[i], errs[i] = c.dial(ctx, first+i)
		})
	}
	all.Wait()
	return sessions, errors.Join(errs...)
}

func resetAll(sessions []session) {
	for _, s := range sessions {
		if s != nil {
			s.reset()
		}
	}
}

func total(sessions []session) (n uint64) {
	for _, s := range sessions {
		n += s.received()
	}
	return n
}

// warm is how long bytes flow before they are counted.
const warm = 300 * time.Millisecond

// bulk is bytes through n sessions at once.
func (c *client) bulk(ctx context.Context, n int, d time.Duration) (answer, error) {
	sessions, err := c.dialAll(ctx, 0, n)
	defer resetAll(sessions)
	if err != nil {
		return answer{}, err
	}
	for _, s := range sessions {
		if err := s.bulk(); err != nil {
			return answer{}, err
		}
	}
	time.Sleep(warm)
	before, began := total(sessions), time.Now()
	if err := say(answer{Count: 1}); err != nil { // now the processors' time is read
		return answer{}, err
	}
	time.Sleep(d)
	return answer{Bytes: int64(total(sessions) - before), Took: time.Since(began)}, nil
}

// trips is n round trips, one after the other; on a session of its own where
// none is given.
func (c *client) trips(ctx context.Context, n int, s session) (answer, error) {
	if s == nil {
		var err error
		if s, err = c.dial(ctx, 0); err != nil {
			return answer{}, err
		}
		defer s.reset()
	}
	a := answer{Trips: make([]time.Duration, n)}
	for range n / 10 { // the path's first ones tell of its opening
		if err := s.trip(); err != nil {
			return a, err
		}
	}
	for i := range a.Trips {
		began := time.Now()
		if err := s.trip(); err != nil {
			return a, err
		}
		a.Trips[i] = time.Since(began)
	}
	return a, nil
}

// beside is round trips while another session is full of bytes.
func (c *client) beside(ctx context.Context, n int) (answer, error) {
	other, err := c.dial(ctx, 1)
	if err != nil {
		return answer{}, err
	}
	defer other.reset()
	if err := other.bulk(); err != nil {
		return answer{}, err
	}
	return c.trips(ctx, n, nil)
}

// within is round trips on the session that is full of bytes.
func (c *client) within(ctx context.Context, n int) (answer, error) {
	s, err := c.dial(ctx, 0)
	if err != nil {
		return answer{}, err
	}
	defer s.reset()
	if err := s.bulk(); err != nil {
		return answer{}, err
	}
	return c.trips(ctx, n, s)
}

// opens is how long it takes from nothing to the first byte, n times.
func (c *client) opens(ctx context.Context, n int) (answer, error) {
	var a answer
	for i := range n {
		began := time.Now()
		s, err := c.dial(ctx, i)
		if err != nil {
			return a, err
		}
		if err := s.bulk(); err != nil {
			return a, err
		}
		for s.received() == 0 {
			time.Sleep(20 * time.Microsecond)
		}
		a.Trips = append(a.Trips, time.Since(began))
		s.reset()
	}
	return a, nil
}

// shake is how many sessions can be opened, four at a time.
func (c *client) shake(ctx context.Context, d time.Duration) (answer, error) {
	began := time.Now()
	var done atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, 4)
	for worker := range errs {
		all.Go(func() {
			for i := worker; time.Since(began) < d; i = (i + len(errs)) % (sessionCount - len(errs)) {
				s, err := c.dial(ctx, i)
				if err != nil {
					errs[worker] = err
					return
				}
				s.reset()
				done.Add(1)
			}
		})
	}
	all.Wait()
	return answer{Count: int(done.Load()), Took: time.Since(began)}, errors.Join(errs...)
}

// hold opens n idle sessions, or lets all go for none.
func (c *client) hold(ctx context.Context, n int) (answer, error) {
	resetAll(c.idle)
	c.idle = nil
	if n == 0 {
		return answer{}, nil
	}
	var err error
	if c.idle, err = c.dialAll(ctx, 0, n); err != nil {
		return answer{}, err
	}
	for _, s := range c.idle { // a bare stream is not there before it carries something
		if err := s.trip(); err != nil {
			return answer{}, err
		}
	}
	return answer{Count: n}, nil
}
