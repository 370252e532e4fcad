package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"openscope/wire"
)

// DaemonConfig is what a daemon stands on a relay with.
type DaemonConfig struct {
	Relay wire.Relay
	// Roots authenticate a relay without a pin; nil means the system's.
	Roots *x509.CertPool
	// Prove signs hello for a connection with this exporter.
	Prove  func(exporter [32]byte) (wire.TokenID, []byte, error)
	Ways   Ways
	Logger *slog.Logger
}

// Daemon is a daemon's one connection to one relay: a control stream, and a
// stream for every leg.
type Daemon struct {
	conn    link
	control Stream
	ack     wire.HelloAck
	done    chan struct{} // closed when the control stream is lost
	running sync.WaitGroup

	writeMu sync.Mutex // one message at a time on the control stream

	mu       sync.Mutex // guards what is below
	sessions map[wire.RendezvousID]bool
	waiting  map[wire.RendezvousID][]chan wire.RegisterStatus // in the order of their questions
	busy     chan struct{}                                    // tells the heartbeat that there is a session
	err      error
}

// ErrTokenRefused says that the relay does not take this deployment token.
var ErrTokenRefused = errors.New("the relay does not take the token")

// DialDaemon connects, says hello and awaits the answer. The connection's own
// goroutines, for the control stream and the heartbeat, end with Close.
func DialDaemon(ctx context.Context, cfg DaemonConfig) (*Daemon, error) {
	conn, err := dial(ctx, &cfg.Ways, cfg.Relay, cfg.Roots, MaxDaemonStreams)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		conn: conn, done: make(chan struct{}), busy: make(chan struct{}, 1),
		sessions: make(map[wire.RendezvousID]bool),
		waiting:  make(map[wire.RendezvousID][]chan wire.RegisterStatus),
	}
	if err := d.hello(ctx, cfg); err != nil {
		conn.close()
		return nil, fmt.Errorf("saying hello to %s: %w", cfg.Relay.Address, err)
	}
	d.running.Go(d.readControl)
	d.running.Go(d.heartbeat)
	return d, nil
}

func (d *Daemon) hello(ctx context.Context, cfg DaemonConfig) error {
	token, signature, err := cfg.Prove(d.conn.exporterKey())
	if err != nil {
		return err
	}
	if d.control, err = d.conn.stand(ctx, wire.Hello{Token: token, Signature: signature}.Append(nil)); err != nil {
		return helloError(err)
	}
	if err := d.control.SetReadDeadline(time.Now().Add(wire.FirstBytes)); err != nil {
		return err
	}
	t, body, err := wire.ReadMessage(d.control)
	if err != nil {
		return helloError(err)
	}
	if t != wire.TypeHelloAck {
		return fmt.Errorf("%w: type %d in answer to hello", wire.ErrMessage, t)
	}
	if d.ack, err = wire.ParseHelloAck(body); err != nil {
		return err
	}
	return d.control.SetReadDeadline(time.Time{})
}

func helloError(err error) error {
	err = legError(err)
	if errors.Is(err, wire.ErrRefused) {
		return ErrTokenRefused
	}
	return err
}

// Exporter names the connection in proofs.
func (d *Daemon) Exporter() [32]byte { return d.conn.exporterKey() }

// Rung is the way by which the relay was reached.
func (d *Daemon) Rung() Rung { return d.conn.rung() }

// Address is the node's own public address, or empty.
func (d *Daemon) Address() string { return d.ack.Address }

// Done is closed when the connection is lost; Err then says why.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Err is why the connection was lost, or nil.
func (d *Daemon) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Close ends the connection and waits for its goroutines.
func (d *Daemon) Close() error {
	d.conn.close()
	d.running.Wait()
	return nil
}

// Register makes a session known and waits for the relay's answer. It may be
// asked for twice at once: by whoever opens the session, and by whoever has just
// connected and registers all there are.
func (d *Daemon) Register(ctx context.Context, r wire.Register) error {
	answer, err := d.askToRegister(r)
	defer d.forget(r.RID, answer)
	if err != nil {
		return fmt.Errorf("registering a session: %w", err)
	}
	select {
	case status := <-answer:
		return d.registered(r.RID, status)
	case <-d.done:
		return fmt.Errorf("registering a session: %w", d.Err())
	case <-ctx.Done():
		return fmt.Errorf("registering a session: %w", context.Cause(ctx))
	}
}

// askToRegister sends the question, and returns where its answer comes.
func (d *Daemon) askToRegister(r wire.Register) (answer chan wire.RegisterStatus, err error) {
	answer = make(chan wire.RegisterStatus, 1)
	d.mu.Lock()
	d.waiting[r.RID] = append(d.waiting[r.RID], answer)
	d.mu.Unlock()
	return answer, d.send(r.Append(nil))
}

// forget ends the wait for an answer, whether or not it has come.
func (d *Daemon) forget(rid wire.RendezvousID, answer chan wire.RegisterStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := slices.DeleteFunc(d.waiting[rid], func(c chan wire.RegisterStatus) bool { return c == answer })
	if len(left) == 0 {
		delete(d.waiting, rid)
		return
	}
	d.waiting[rid] = left
}

// answered hands the relay's answer to the first who waits for one.
func (d *Daemon) answered(ack wire.RegisterAck) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.waiting[ack.RID]
	if len(waiting) == 0 {
		return
	}
	waiting[0] <- ack.Status // it takes one
	d.waiting[ack.RID] = waiting[1:]
}

func (d *Daemon) registered(rid wire.RendezvousID, status wire.RegisterStatus) error {
	switch status {
	case wire.Registered:
	case wire.RegisterFull:
		return errors.New("registering a session: the relay holds as many as the token may have")
	default:
		return errors.New("registering a session: the relay refused it")
	}
	d.mu.Lock()
	d.sessions[rid] = true
	d.mu.Unlock()
	select {
	case d.busy <- struct{}{}:
	default:
	}
	return nil
}

// Unregister takes a session off the relay.
func (d *Daemon) Unregister(rid wire.RendezvousID) error {
	d.mu.Lock()
	delete(d.sessions, rid)
	d.mu.Unlock()
	return d.send(wire.Unregister{RID: rid}.Append(nil))
}

// Keep protects a leg that has finished its handshake from later joins.
func (d *Daemon) Keep(rid wire.RendezvousID, leg uint64) error {
	return d.send(wire.Kept{RID: rid, Leg: leg}.Append(nil))
}

func (d *Daemon) send(message []byte) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := d.control.SetWriteDeadline(time.Now().Add(wire.FirstBytes)); err != nil {
		return err
	}
	_, err := d.control.Write(message)
	return legError(err)
}

// Accept returns the next leg. The preface is read under a short deadline: a
// relay that writes half of one holds up nobody but its own legs. The caller's
// loop must only spawn.
func (d *Daemon) Accept(ctx context.Context) (wire.Preface, wire.Leg, error) {
	for {
		stream, err := d.conn.accept(ctx)
		if err != nil {
			return wire.Preface{}, nil, fmt.Errorf("accepting a leg: %w", err)
		}
		l := &leg{Stream: stream, by: d.Rung()}
		preface, err := readPreface(l)
		if err == nil {
			return preface, l, nil
		}
		l.Reset()
	}
}

// prefaceWithin is short: the relay writes the preface in the stream's first
// packet, which is what made the stream visible.
const prefaceWithin = time.Second

func readPreface(l *leg) (wire.Preface, error) {
	if err := l.SetReadDeadline(time.Now().Add(prefaceWithin)); err != nil {
		return wire.Preface{}, err
	}
	t, body, err := wire.ReadMessage(l)
	if err != nil {
		return wire.Preface{}, err
	}
	if t != wire.TypePreface {
		return wire.Preface{}, fmt.Errorf("%w: type %d for a preface", wire.ErrMessage, t)
	}
	preface, err := wire.ParsePreface(body)
	if err != nil {
		return wire.Preface{}, err
	}
	return preface, l.SetReadDeadline(time.Time{})
}

// readControl takes the relay's answers until the control stream is lost.
func (d *Daemon) readControl() {
	for {
		t, body, err := wire.ReadMessage(d.control)
		if err == nil && t != wire.TypeRegisterAck {
			err = fmt.Errorf("%w: type %d on the control stream", wire.ErrMessage, t)
		}
		var ack wire.RegisterAck
		if err == nil {
			ack, err = wire.ParseRegisterAck(body)
		}
		if err != nil {
			d.lost(legError(err))
			return
		}
		d.answered(ack)
	}
}

func (d *Daemon) lost(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.mu.Unlock()
	close(d.done)
	d.conn.lost() // Accept returns, and the legs end
}

// heartbeat sends packets large enough to draw a stateless reset from a relay
// that has been restarted, often while there is a session to lose.
func (d *Daemon) heartbeat() {
	timer, look := time.NewTimer(wire.HeartbeatBusy), time.NewTicker(lookInterval)
	defer timer.Stop()
	defer look.Stop()
	var path silence
	for {
		select {
		case <-d.done:
			return
		case <-d.busy:
		case now := <-look.C:
			if path.since(d.conn.arrivals(), now) > silentAfter {
				d.giveUp(errSilent)
				return
			}
			continue
		case <-timer.C:
			if err := d.send(wire.AppendHeartbeat(nil)); err != nil {
				if timedOut(err) { // otherwise readControl reports the loss
					d.giveUp(errSilent)
				}
				return
			}
			d.conn.probe()
			path.asked(d.conn.arrivals(), time.Now())
		}
		timer.Reset(d.rhythm(path))
	}
}

// giveUp ends a connection of which readControl would not notice the loss.
func (d *Daemon) giveUp(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.mu.Unlock()
	d.conn.lost()
}

func (d *Daemon) rhythm(path silence) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) > 0 || !path.begun.IsZero() {
		return wire.HeartbeatBusy
	}
	return wire.HeartbeatIdle
}

// A path on which a heartbeat, and what QUIC or TCP sends again of it, draws not
// one packet for so long leads nowhere: somebody has begun to drop UDP, or a
// middlebox has forgotten the connection, or the machine has another network now.
const (
	silentAfter  = 5 * time.Second
	lookInterval = time.Second
)

var errSilent = errors.New("the relay is silent")

// silence is since when heartbeats have drawn nothing.
type silence struct {
	begun    time.Time // the first of these; zero where there is none
	arrivals uint64    // that had come by then
}

// asked notes that a heartbeat was sent.
func (s *silence) asked(arrivals uint64, now time.Time) {
	if s.begun.IsZero() || arrivals != s.arrivals {
		s.begun, s.arrivals = now, arrivals
	}
}

// since is how long nothing has come, after something was sent.
func (s *silence) since(arrivals uint64, now time.Time) time.Duration {
	if arrivals != s.arrivals {
		s.begun = time.Time{}
	}
	if s.begun.IsZero() {
		return 0
	}
	return now.Sub(s.begun)
}
